"""The column that figures are told apart by (groupBy): read of every row, and refused where no gap can come of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from ...contract import EvaluationTask, Reason, Threshold
from ...contract.evaluation import DEFAULT_GROUP_ROWS
from ...data.cleaning.steps import Finding
from ...data.reading.messages import malformed, text
from ...data.reading.readers import Record
from ...errors import DataInvalid
from ..rows import EvaluationRow
from ..scoring.groups.odds import Rate, rates
from ..scoring.texts.parsing import composed, is_seen
from ..statistics import MINIMUM_GROUP_CLUSTERS, Resampling, large_enough

NAMED_RATES = 4
"""Rates that a message names."""


def group_of(record: Record, column: str, setting: str = "groupBy") -> str | None:
    """Return a record's group; None where it has none.

    Args:
        setting: that names the column, for people.

    Raises:
        DataInvalid: DATASET_MALFORMED, it is neither text nor a whole number nor a boolean, or a text that cannot be
            written.
    """
    value = record.value.get(column)
    if value is None or value != value:  # noqa: PLR0124  not a number: a null of pandas
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float) and value.is_integer():  # a table with empty cells has 5.0 for 5
        value = int(value)
    if isinstance(value, str | int):
        # One name in two of Unicode's forms, or with a blank about it, would be groups that nobody tells apart.
        name = composed(text(str(value), column, record.place)).strip()
        return name if is_seen(name) else None
    raise malformed(record.place, f"has a {type(value).__name__} in the column {column}, where {setting} needs a text")


def refuse_ungrouped(task: EvaluationTask, ungrouped: Finding, read: int, *, some: bool) -> None:
    """Refuse rows without a value in the groupBy column, of so many that were read; `some` rows may have one.

    Raises:
        DataInvalid: GROUP_MISSING.
    """
    if not ungrouped.count:
        return
    kept = (
        "; of the rows that training held out only the column 'group' is kept: give the data by dataset.uri"
        if task.dataset.split is not None and task.group_by != "group"
        else ""
    )
    if not some:
        raise DataInvalid(
            f"task {task.name}: no row has a value in the column {task.group_by} of groupBy{kept or '; correct it'}",
            Reason.GROUP_MISSING,
        )
    raise DataInvalid(
        f"task {task.name}: {ungrouped.count} of {read} rows have no value in the column {task.group_by} of groupBy, "
        f"the first is {ungrouped.places[0]}{kept or '; add it, or remove them'}",
        Reason.GROUP_MISSING,
    )


def check_groups(task: EvaluationTask, rows: Iterable[tuple[str | None, int]], thresholds: list[Threshold]) -> None:
    """Refuse a group gap for which fewer than two groups are large enough, those pooled as 'other' being one.

    Args:
        rows: the group and the cluster of each.

    Raises:
        DataInvalid: GROUP_MISSING.
    """
    of_group: dict[str, list[int]] = defaultdict(list)
    for group, cluster in rows:
        of_group[str(group)].append(cluster)
    for threshold in thresholds:
        if threshold.task != task.name or not threshold.by_group:
            continue
        minimum = threshold.minimum_group_rows or DEFAULT_GROUP_ROWS
        judged = [name for name, members in of_group.items() if _enough(members, minimum)]
        pooled = [each for name, members in of_group.items() if name not in judged for each in members]
        if len(judged) + _enough(pooled, minimum) < 2:
            largest = sorted(of_group, key=lambda name: (-len(of_group[name]), name))[:5]
            raise DataInvalid(
                f"task {task.name}: a bound on groups needs two groups of at least {minimum} rows and "
                f"{MINIMUM_GROUP_CLUSTERS} clusters, but {task.group_by} has {len(of_group)} values, the largest "
                f"{', '.join(f'{name} ({len(of_group[name])} rows)' for name in largest)}; add rows, raise "
                "dataset.limit, or lower minimumGroupRows",
                Reason.GROUP_MISSING,
            )


def _enough(clusters_of_rows: list[int], minimum: int) -> bool:
    return large_enough(len(clusters_of_rows), len(set(clusters_of_rows)), minimum_rows=minimum)


def check_odds(
    task: EvaluationTask, rows: Sequence[EvaluationRow], threshold: Threshold, resampling: Resampling
) -> str | None:
    """Refuse a gap of odds where no rate can be compared; return what it promises nothing of, for people.

    Raises:
        DataInvalid: GROUP_MISSING, with how many rows are lacking where fewest are.
    """
    if threshold.task != task.name or threshold.maximum_odds_gap is None:
        return None
    minimum = threshold.minimum_group_rows or DEFAULT_GROUP_ROWS
    every = list(rates(task, rows, resampling, minimum))
    enough = f"{minimum} rows and {MINIMUM_GROUP_CLUSTERS} clusters"
    lacking = [rate for rate in every if not rate.compared]
    if len(lacking) == len(every):
        needed, nearest = min(((_lacking(rows, rate, minimum), rate) for rate in every), key=lambda each: each[0])
        raise DataInvalid(
            f"task {task.name}: maximumOddsGap needs two groups of at least {enough} that a rate of one label is of; "
            f"nearest is {nearest.figure}, with {_sizes(rows, nearest)}, which lacks {needed} rows of clusters of "
            "their own; add rows, raise dataset.limit, or lower minimumGroupRows",
            Reason.GROUP_MISSING,
        )
    if not lacking:
        return None
    named = ", ".join(rate.figure for rate in lacking[:NAMED_RATES])
    more = f" and {len(lacking) - NAMED_RATES} more" if len(lacking) > NAMED_RATES else ""
    return (
        f"task {task.name}: maximumOddsGap promises nothing of {named}{more}: no two groups have {enough} of each; add "
        "rows, or lower minimumGroupRows"
    )


def _clusters_by_group(rows: Sequence[EvaluationRow], rate: Rate) -> list[tuple[str, list[int]]]:
    """Return the cluster of each row of a rate by group, the largest group first."""
    found: dict[str, list[int]] = defaultdict(list)
    for at in rate.rows:
        found[str(rows[at].group)].append(rows[at].cluster)
    return sorted(found.items(), key=lambda each: (-len(each[1]), each[0]))


def _lacking(rows: Sequence[EvaluationRow], rate: Rate, minimum: int) -> int:
    """Return how many rows would do: to the largest group, and to all others, which are pooled where they are small."""
    groups = [clusters for _, clusters in _clusters_by_group(rows, rate)]
    largest, others = groups[0] if groups else [], [cluster for each in groups[1:] for cluster in each]
    return sum(max(0, minimum - len(each), MINIMUM_GROUP_CLUSTERS - len(set(each))) for each in (largest, others))


def _sizes(rows: Sequence[EvaluationRow], rate: Rate) -> str:
    found = _clusters_by_group(rows, rate)[:5]
    return ", ".join(f"{name} ({len(each)} rows in {len(set(each))} clusters)" for name, each in found) or "no rows"
