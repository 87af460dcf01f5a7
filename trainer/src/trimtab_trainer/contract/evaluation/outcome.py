"""What the trainer answers: what it prepared, figures, facts about bounds, and how they fit into 4 kB."""

from __future__ import annotations

import base64
import decimal
import json
import zlib
from typing import Any, Self

from pydantic import Field

from ..gate.figures import WHOLE
from ..model import Received
from ..settings import DIGEST
from .thresholds import BOUNDS, Against, BoundName

OUTCOME_BYTES = 1 << 18
"""Of a packed outcome, before it is packed into a termination message of 4 kB: more was not written by `pack`."""
UNRELIABLE_LENGTH = 400


class PreparedEvaluation(Received):
    """What preparing an evaluation found out: content addresses and sizes."""

    evaluation_digest: DIGEST = Field(description="evaluationDigest addresses <output>/evaluations/<digest>")
    data_digest: DIGEST = Field(description="dataDigest addresses <output>/evaluations/data/<digest>")
    base_model_digest: DIGEST
    target_digest: DIGEST | None = Field(default=None, description="targetDigest of the adapter; absent: base alone")
    baseline_digest: DIGEST | None = Field(default=None, description="baselineDigest of the adapter, if it is one")
    anchor_digest: DIGEST | None = Field(default=None, description="anchorDigest of the adapter, if it is one")
    answers_digest: DIGEST | None = Field(
        default=None,
        exclude_if=lambda value: value is None,
        description="answersDigest of what is to be judged: <output>/evaluations/answers/<digest>, for `judge`",
    )
    tasks: int = Field(ge=1)
    rows: WHOLE = Field(description="rows of all tasks")


class Result(Received):
    """One figure of one task: an estimate with a 95 % interval, and its change against the baseline."""

    task: str
    metric: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    count: WHOLE = Field(default=0, description="rows")
    baseline: float | None = None
    change: float | None = Field(default=None, description="value - baseline")
    change_low: float | None = None
    change_high: float | None = None
    lower_is_better: bool = False
    anchor: float | None = Field(default=None, exclude_if=lambda value: value is None)
    anchor_change: float | None = Field(
        default=None, exclude_if=lambda value: value is None, description="value - anchor"
    )
    anchor_change_low: float | None = Field(default=None, exclude_if=lambda value: value is None)
    anchor_change_high: float | None = Field(default=None, exclude_if=lambda value: value is None)


class Check(Received):
    """What is known about one bound of one threshold: facts for the verdict, which the operator gives.

    Attributes:
        threshold: its index in the configuration.
        bound: which of the threshold's bounds.
        estimate: value, regression (positive is worse), relative regression, group gap, or share of worse rows.
        p_pass: probability under resampling of data at least this good if the truth were just beyond the bound: a
            small one excludes it. Only with `confidence`.
        p_fail: the same for the truth just within the bound: a small one excludes that all is well.
        low: of a group gap, its lower simultaneous confidence bound: what sampling noise does not explain.
        rows_needed: rows for a decision at 80 % power, if these did not suffice.
        clusters: in how many clusters the rows are that were tested; absent where each stands alone.
        worst, best: the groups of the gap; of a group regression the worst.
        figure: of a gap of odds, the rate that it is of.
        against: what it is held against, where the bound compares.
    """

    threshold: int = Field(ge=0)
    bound: BoundName
    estimate: float | None = None
    p_pass: float | None = None
    p_fail: float | None = None
    low: float | None = None
    rows_needed: int | None = None
    clusters: int | None = Field(default=None, exclude_if=lambda value: value is None)
    worst: str | None = None
    best: str | None = None
    figure: str | None = Field(default=None, exclude_if=lambda value: value is None)
    against: Against = Field(default=Against.BASELINE, exclude_if=lambda value: value is Against.BASELINE)


_RESULT_COLUMNS = (
    "task",
    "metric",
    "value",
    "low",
    "high",
    "count",
    "baseline",
    "change",
    "change_low",
    "change_high",
    "lower_is_better",
    "anchor",
    "anchor_change",
    "anchor_change_low",
    "anchor_change_high",
)
_CHECK_COLUMNS = (
    "threshold",
    "bound",
    "estimate",
    "p_pass",
    "p_fail",
    "low",
    "rows_needed",
    "worst",
    "best",
    "against",
    "figure",
    "clusters",
)


PACKED_DIGITS = 6
"""Significant digits of packed figures; `results.json` has all of them."""
_DIGITS_OF_CHECKS = {"estimate": 5, "p_pass": 4, "p_fail": 4, "low": 4, "rows_needed": 2}
"""A share of 10,000 resamples has no more than four digits, and a forecast of rows is good for two."""
_FEWEST_DIGITS_OF_CHECKS = {"estimate": 4, "p_pass": 2, "p_fail": 2, "low": 3, "rows_needed": 1}
"""Where all bounds of all thresholds are set, which nobody needs: rounded in the direction that refuses, they fit."""
_LAST_DIGITS_OF_CHECKS = {**_FEWEST_DIGITS_OF_CHECKS, "estimate": 3, "p_fail": 1, "low": 2}
"""Where they are set against baseline and anchor, and without the rows that are needed."""
PACKED_NAME_LENGTH = 64
"""Names of groups are any text of the data."""


def _worse(check: Check, name: str) -> str | None:
    """Return the direction in which a figure of a check is rounded: a value beyond its limit must not come onto it."""
    if name == "estimate":
        return decimal.ROUND_FLOOR if check.bound == "minimum" else decimal.ROUND_CEILING
    return decimal.ROUND_CEILING if name in ("p_pass", "p_fail", "low") else None


def _packed(value: Any, digits: int = PACKED_DIGITS, rounding: str | None = None) -> Any:
    if isinstance(value, float) and rounding is not None:
        return float(decimal.Context(prec=digits, rounding=rounding).create_decimal(repr(value)))
    if isinstance(value, float) or (isinstance(value, int) and digits < PACKED_DIGITS):
        return type(value)(float(f"{value:.{digits}g}"))
    return value[:PACKED_NAME_LENGTH] if isinstance(value, str) else value


def as_told(checks: list[Check]) -> list[Check]:
    """Return checks as a termination message carries them: a verdict on these is the operator's."""
    return [
        each.model_copy(
            update={
                name: _packed(getattr(each, name), digits, _worse(each, name))
                for name, digits in _DIGITS_OF_CHECKS.items()
            }
        )
        for each in checks
    ]


def _columns_of_checks(checks: list[Check], digits: dict[str, int]) -> list[list[Any]]:
    return [
        [_packed(getattr(each, name), digits.get(name, PACKED_DIGITS), _worse(each, name)) for each in checks]
        for name in _CHECK_COLUMNS
    ]


def _inflated(data: bytes) -> bytes:
    inflating = zlib.decompressobj()
    inflated = inflating.decompress(data, OUTCOME_BYTES)
    if inflating.unconsumed_tail or not inflating.eof:
        raise ValueError(f"it is cut off, or longer than {OUTCOME_BYTES} bytes")
    return inflated


class EvaluationOutcome(Received):
    """What an evaluation found: facts for the verdict, and where the rest of it lies."""

    report_uri: str = Field(max_length=1200, description="reportURI of report.html")
    results_digest: DIGEST = Field(description="resultsDigest of results.json")
    rows: WHOLE = 0
    looks: WHOLE = Field(default=0, description="evaluations that saw the most used of these rows, this one included")
    results: list[Result] = Field(default=[])
    omitted: WHOLE = Field(default=0, description="results that are in the report only")
    unreliable: str | None = Field(
        default=None, max_length=UNRELIABLE_LENGTH, description="why a judge's words decide nothing, in a sentence"
    )
    checks: list[Check] = Field(default=[])

    def pack(self, limit: int) -> str:
        """Return the outcome as text of at most `limit` characters: columns of JSON, deflated, in base64.

        A termination message holds 4 kB, and fifty tasks with their intervals are more than that as plain JSON.
        Results are left out from the end until it fits, those that a check is about stand first; then the names of
        groups, then digits of the checks, then clusters, and then the rows that are needed. Figures are rounded to
        `PACKED_DIGITS` or fewer, those of checks in the direction that refuses.
        """
        kept, checks, digits = len(self.results), self.checks, _DIGITS_OF_CHECKS
        columns = [[_packed(getattr(each, name)) for each in self.results] for name in _RESULT_COLUMNS]
        columns_of_checks = _columns_of_checks(checks, digits)
        while True:
            document = {
                "reportUri": self.report_uri,
                "resultsDigest": self.results_digest,
                "rows": self.rows,
                "looks": self.looks,
                **({"unreliable": self.unreliable} if self.unreliable is not None else {}),
                "omitted": self.omitted + len(self.results) - kept,
                "results": [column[:kept] for column in columns],
                "checks": columns_of_checks,
            }
            data = json.dumps(document, separators=(",", ":")).encode()
            text = base64.b85encode(zlib.compress(data, 9)).decode()
            if len(text) <= limit:
                return text
            if kept:
                kept -= 1
                continue
            if any(each.worst or each.best or each.figure for each in checks):
                checks = [each.model_copy(update={"worst": None, "best": None, "figure": None}) for each in checks]
            elif digits is _DIGITS_OF_CHECKS:
                digits = _FEWEST_DIGITS_OF_CHECKS
            elif any(each.clusters is not None for each in checks):
                checks = [each.model_copy(update={"clusters": None}) for each in checks]
            elif digits is not _LAST_DIGITS_OF_CHECKS:
                checks = [each.model_copy(update={"rows_needed": None}) for each in checks]
                digits = _LAST_DIGITS_OF_CHECKS
            else:
                return text
            columns_of_checks = _columns_of_checks(checks, digits)

    @classmethod
    def unpack(cls, text: str) -> Self:
        """Return what `pack` was given, by this version or another: columns are only ever added, behind the others.

        Raises:
            ValueError: the text is something else.
        """
        try:
            document: dict[str, Any] = json.loads(_inflated(base64.b85decode(text)))
            results = [dict(zip(_RESULT_COLUMNS, row, strict=False)) for row in zip(*document["results"], strict=True)]
            checks = [dict(zip(_CHECK_COLUMNS, row, strict=False)) for row in zip(*document["checks"], strict=True)]
        except (zlib.error, ValueError, KeyError, TypeError, RecursionError) as error:
            raise ValueError(f"no outcome of an evaluation: {error}") from error
        checks = [check for check in checks if check.get("bound") in BOUNDS]  # others are of no threshold that we wrote
        return cls.model_validate({**document, "results": results, "checks": checks})
