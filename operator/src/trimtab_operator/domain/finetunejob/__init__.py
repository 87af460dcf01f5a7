"""What is particular to FineTuneJobs; `work` decides about them."""

from .kind import FINE_TUNE_JOB

__all__ = ["FINE_TUNE_JOB"]
