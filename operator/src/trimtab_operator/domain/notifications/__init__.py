"""Notifications: which changes of a state are told outside of the cluster, to whom, and in what words.

All of it is pure; `runtime.notifying` sends them.
"""

from .endpoints import Endpoint, Format
from .messages import Message, message_of
from .transitions import Transition, transitions_of

__all__ = ["Endpoint", "Format", "Message", "Transition", "message_of", "transitions_of"]
