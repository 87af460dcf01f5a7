"""The command line: arguments become calls of the client, and values become pictures.

What is slow to import is imported by the verb that needs it. The verbs register themselves, in the order of the help.
"""

from . import opening, reading, reviewing, trying, writing
from .options import app

__all__ = ["app", "opening", "reading", "reviewing", "trying", "writing"]
