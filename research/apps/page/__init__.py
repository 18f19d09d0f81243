"""A page to look at: play with a model, rank completions, ask documents, follow agents and runs; no outside address."""

from .routes import FILES, Services, routes

__all__ = ["FILES", "Services", "routes"]
