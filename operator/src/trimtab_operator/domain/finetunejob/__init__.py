"""Decisions about FineTuneJobs: `plan` is the entry, each other module holds one idea that it uses."""

from .observed import NameTaken, Observed
from .plan import plan

__all__ = ["NameTaken", "Observed", "plan"]
