"""An HTTP server that OpenAI's clients know, before any `apps.serving.Engine`; it needs the extra `serve`."""

from .app import Embeddings, app
from .limits import Limits

__all__ = ["Embeddings", "Limits", "app"]
