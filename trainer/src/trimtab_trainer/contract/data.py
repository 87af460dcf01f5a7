"""What a user may say of cleaning, splitting, balancing and auditing a data set."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from .model import Model
from .settings import OBJECT_URI

COLUMN = Annotated[str, Field(min_length=1, max_length=253)]
"""Name of a column: a key of the rows."""
MOST_COLUMNS, MOST_EVALUATION_DATA = 8, 16


class Handling(StrEnum):
    DROP = "Drop"
    KEEP = "Keep"


class NearDuplicates(StrEnum):
    DROP = "Drop"
    KEEP_TOGETHER = "KeepTogether"
    KEEP = "Keep"


class InvalidText(StrEnum):
    KEEP = "Keep"
    DROP = "Drop"
    REFUSE = "Refuse"


class TooLong(StrEnum):
    DROP = "Drop"
    TRUNCATE = "Truncate"


class BalanceBy(StrEnum):
    WEIGHT = "Weight"
    REPEAT = "Repeat"


class Cleaning(Model):
    """What is taken out of the data before anything is learned from it; every step is counted."""

    exact_duplicates: Handling = Field(
        default=Handling.DROP, description="exactDuplicates: rows that repeat another one are dropped, or kept."
    )
    near_duplicates: NearDuplicates = Field(
        default=NearDuplicates.KEEP_TOGETHER,
        description="nearDuplicates: of rows that say nearly the same all but one are dropped; or they are kept on one "
        "side of the split; or they are kept and not looked for.",
    )
    similarity: float = Field(
        default=0.8,
        ge=0.7,
        le=1,
        description="similarity from which rows are near duplicates: shared word 3-grams by all that they have.",
    )
    blank_turns: Handling = Field(
        default=Handling.DROP, description="blankTurns: rows with an answer that is blank are dropped, or kept."
    )
    invalid_text: InvalidText = Field(
        default=InvalidText.KEEP,
        description="invalidText: rows with replacement characters (bytes that were lost) or control characters are "
        "kept and counted, dropped, or refused.",
    )
    too_long: TooLong = Field(
        default=TooLong.DROP,
        description="tooLong: rows longer than maxSequenceLength are dropped, or cut behind the last answer that fits.",
    )
    overlap: Handling = Field(
        default=Handling.DROP,
        description="overlap: training rows that say what held-out rows say are dropped, or kept.",
    )
    evaluation_data: list[OBJECT_URI] = Field(
        default=[],
        max_length=MOST_EVALUATION_DATA,
        json_schema_extra={"x-kubernetes-list-type": "set"},
        description="evaluationData are uris of data that Evaluations will ask: training rows that hold it are "
        "dropped. It is read with the data set's key.",
    )
    warn_dropped: float = Field(
        default=0.1, ge=0, le=1, description="warnDropped is the share of dropped rows above which a warning is given."
    )
    maximum_dropped: float = Field(
        default=1.0, ge=0, le=1, description="maximumDropped is the share of dropped rows above which data is refused."
    )


class Balance(Model):
    """Makes groups of rows count alike: each as much as the largest, up to a bound."""

    column: COLUMN = Field(description="column whose values are the groups, at most 1000.")
    by: BalanceBy = Field(
        default=BalanceBy.REPEAT, description="by: rows of small groups are repeated, or weigh more in the loss."
    )
    maximum: float = Field(
        default=4.0, ge=1, le=100, description="maximum is the most that a row is repeated, or weighs."
    )


class DataAudit(Model):
    """What the data is looked at by; nothing is changed by it."""

    columns: list[COLUMN] = Field(
        default=[],
        max_length=MOST_COLUMNS,
        json_schema_extra={"x-kubernetes-list-type": "set"},
        description="columns by which rows, tokens, length, language and answers are counted, up to 1000 values each.",
    )
    minimum_share: float = Field(
        default=0.01, ge=0, le=1, description="minimumShare of the rows that a group has to have, else a warning."
    )
