"""What figures of so many rows can tell: the paired cluster bootstrap, its tests, and gaps between groups.

Numpy and the contract alone: no files, no models, no rows. Statistics of rows come in as [rows, k] with a function of
their sums, facts go out. In the order in which it is best read:

bootstrap     `Resampling` draws clusters; a `Part` is what is resampled
distribution  a figure with its resamples: standard error, percentile interval
p_values      one-sided tests of it against a bound: BCa, with what keeps its level in small samples
student       Student's t and normal scores, each of the other
broken_rows   what a mean over few rows does not hold
worse_rows    the share of rows that are worse, tested exactly
sample_size   how many rows would decide
figure        the same figure of target and baseline, their change, and the loss that a regression is
bounds        what is known about each bound of a threshold
group_gap     rows by group, and the gap between the best and the worst that noise does not explain

`comparison` and `scoring.groups.group_figures` call it; `preparing` asks how many rows make a group.
"""

from .arrays import Array, Indices
from .bootstrap import Part, Resampling
from .bounds import bound_checks
from .broken_rows import BrokenRow
from .distribution import INTERVAL, Distribution
from .figure import Figure, finite
from .group_gap import MINIMUM_GROUP_CLUSTERS, Gap, Partition, gap, large_enough, partition
from .p_values import MINIMUM_CLUSTERS, MINIMUM_WEIGHT, p_at_least, p_at_most
from .sample_size import rows_needed
from .worse_rows import worse_check

__all__ = [
    "INTERVAL",
    "MINIMUM_CLUSTERS",
    "MINIMUM_GROUP_CLUSTERS",
    "MINIMUM_WEIGHT",
    "Array",
    "BrokenRow",
    "Distribution",
    "Figure",
    "Gap",
    "Indices",
    "Part",
    "Partition",
    "Resampling",
    "bound_checks",
    "finite",
    "gap",
    "large_enough",
    "p_at_least",
    "p_at_most",
    "partition",
    "rows_needed",
    "worse_check",
]
