"""Work in stages: what FineTuneJobs, Evaluations and AdapterExports have in common, from a snapshot to a plan.

`plan` is the entry, `staged` makes the record of a kind. `Particulars` says what one kind has of its own; each other
module holds one idea that `plan` uses.
"""

from .attempts.attempt import Attempt, attempts_of
from .decide import plan
from .observed import Observed
from .particulars import Hold, Particulars, References

__all__ = ["Attempt", "Hold", "Observed", "Particulars", "References", "attempts_of", "plan"]
