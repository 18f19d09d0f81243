"""Prompts from data: tasks and items, examples in front of a question, answers found in what a model wrote."""

from .shots import Prompt, build, choose
from .task import Item, Outcome, Task

__all__ = ["Item", "Outcome", "Prompt", "Task", "build", "choose"]
