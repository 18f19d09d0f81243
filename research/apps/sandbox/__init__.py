"""A sandbox for Python programs that a model wrote.

Linux namespaces, Landlock, a seccomp allow-list and resource limits, from the standard library; bubblewrap where a
machine forbids the namespaces; nothing runs below the level that the caller demands.
"""

from .levels import LEVELS
from .runner import Isolation, Limits, NoSandboxError, Result, isolation, require, run

__all__ = ["LEVELS", "Isolation", "Limits", "NoSandboxError", "Result", "isolation", "require", "run"]
