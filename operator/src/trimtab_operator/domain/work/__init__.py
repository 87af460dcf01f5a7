"""Work in stages: what a FineTuneJob and an Evaluation have in common, from a snapshot to a plan.

`plan` is the entry. A `Kind` says what is particular to one of them; each other module holds one idea that `plan` uses.
"""

from .kind import Hold, Kind
from .observed import NameTaken, Observed
from .plan import plan

__all__ = ["Hold", "Kind", "NameTaken", "Observed", "plan"]
