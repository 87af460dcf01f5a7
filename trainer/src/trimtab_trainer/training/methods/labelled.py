"""Whether KTO can learn of a side's labelled rows: `prepare` asks before an accelerator is, and `train` again."""

from __future__ import annotations

from ...contract import Method, Reason, TrainingSettings
from ...errors import DataInvalid


def check_labelled(training: TrainingSettings, side: str, rows: int, wanted: int | None) -> None:
    """Refuse labelled rows of which nothing can be learned; of other methods nothing is asked.

    Args:
        training: the settings.
        side: `train`, `validation` or `test`.
        rows: of the side.
        wanted: how many of them have the label true; None where a view of an earlier version does not tell.

    Raises:
        DataInvalid: there is no other row to compare an answer with, or no row counts.
    """
    if training.method is not Method.KTO:
        return
    if rows < 2:
        raise DataInvalid(
            f"KTO compares each answer with that of another row, and the {side} side has {rows} row; give it more",
            Reason.DATASET_EMPTY,
        )
    weights = training.preferences
    for label, field, weight, count in (
        ("true", "desirableWeight", weights.desirable_weight, wanted),
        ("false", "undesirableWeight", weights.undesirable_weight, None if wanted is None else rows - wanted),
    ):
        if count == rows and not weight:
            raise DataInvalid(
                f"all {rows} rows of the {side} side have the label {label}, and training.preference.{field} is 0, so "
                "none of them counts; give it a weight, or the side rows of the other label"
            )
