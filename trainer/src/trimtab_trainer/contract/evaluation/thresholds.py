"""What is good enough: the bounds of a figure, and what it is held against."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from ..model import Model, rules

DEFAULT_GROUP_ROWS = 30
DEFAULT_GAP_CONFIDENCE = 0.95
OTHER_GROUPS = "other"
"""Name of the group that small groups are pooled into."""
METRIC_PATH = Annotated[
    str,
    Field(
        min_length=3,
        max_length=104,
        pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?/[A-Za-z][A-Za-z0-9_]*$",
    ),
]


BOUNDS = (
    "minimum",
    "maximum",
    "maximumRegression",
    "maximumRelativeRegression",
    "maximumGroupGap",
    "maximumWorseRatio",
    "maximumGroupRegression",
    "maximumOddsGap",
)
BoundName = Literal[
    "minimum",
    "maximum",
    "maximumRegression",
    "maximumRelativeRegression",
    "maximumGroupGap",
    "maximumWorseRatio",
    "maximumGroupRegression",
    "maximumOddsGap",
]
GAPS = frozenset({"maximumGroupGap", "maximumOddsGap"})
"""Bounds on differences between groups, which are broken by what chance does not explain."""
OF_GROUPS = "minimumGroupRows belongs to maximumGroupGap, maximumGroupRegression and maximumOddsGap"
NO_ODDS = "maximumOddsGap is of a Classification task with groupBy"
FIGURE_LENGTH = 100


OF_COMPARISON = frozenset(
    {"maximumRegression", "maximumRelativeRegression", "maximumWorseRatio", "maximumGroupRegression"}
)
"""Bounds that are held against another model."""


class Against(StrEnum):
    """The model that a bound is held against."""

    BASELINE = "Baseline"
    ANCHOR = "Anchor"


NO_COMPARISON = "against belongs to a bound that compares, or to a winRate"


class Threshold(Model):
    """What a metric must keep to, alone or against baseline and anchor."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                " || ".join(f"has(self.{bound})" for bound in BOUNDS),
                f"a threshold needs one of {', '.join(BOUNDS)}",
            ),
            (
                "!has(self.minimumGroupRows) || has(self.maximumGroupGap) || has(self.maximumGroupRegression) || "
                "has(self.maximumOddsGap)",
                OF_GROUPS,
            ),
            (
                "!has(self.worseBy) || has(self.maximumWorseRatio)",
                "worseBy belongs to maximumWorseRatio",
            ),
            (
                "!has(self.minimum) || !has(self.maximum) || self.minimum <= self.maximum",
                "minimum must not be above maximum",
            ),
            (
                "!has(self.against) || has(self.maximumRegression) || has(self.maximumRelativeRegression) || "
                "has(self.maximumWorseRatio) || has(self.maximumGroupRegression) || self.metric.endsWith('/winRate')",
                NO_COMPARISON,
            ),
        )
    )

    metric: METRIC_PATH = Field(description="metric as <task>/<result>, such as heldout/perplexity.")
    minimum: float | None = Field(default=None, ge=-1e12, le=1e12, description="minimum value.")
    maximum: float | None = Field(default=None, ge=-1e12, le=1e12, description="maximum value.")
    maximum_regression: float | None = Field(
        default=None,
        ge=0,
        le=1e12,
        description="maximumRegression against the baseline, absolute, in the direction that is worse.",
    )
    maximum_relative_regression: float | None = Field(
        default=None,
        ge=0,
        le=100,
        description="maximumRelativeRegression: the same as a share of the baseline's value, 0.05 is 5 %.",
    )
    maximum_group_gap: float | None = Field(
        default=None,
        ge=0,
        le=1e12,
        description="maximumGroupGap between the best and the worst group, beyond sampling noise. Needs groupBy.",
    )
    maximum_worse_ratio: float | None = Field(
        default=None,
        ge=0,
        lt=1,
        description="maximumWorseRatio of the rows that are worse than under the baseline by more than worseBy, tested "
        "exactly: however bad a few rows are, what it promises holds.",
    )
    worse_by: float | None = Field(
        default=None,
        ge=0,
        le=1e12,
        description="worseBy is how much worse a row may be before it counts in maximumWorseRatio, in the unit of a "
        "row's figure (nats per token of a perplexity); 0 if absent.",
    )
    maximum_group_regression: float | None = Field(
        default=None,
        ge=0,
        le=1e12,
        description="maximumGroupRegression of the worst group against the baseline in the same group, absolute. Needs "
        "groupBy.",
    )
    maximum_odds_gap: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="maximumOddsGap: of every label's true and false positive rate, the most that groups may differ, "
        "beyond sampling noise (equalised odds). Of a Classification task with groupBy, whatever its figure.",
    )
    minimum_group_rows: int | None = Field(
        default=None,
        ge=2,
        le=1_000_000,
        description=f"minimumGroupRows; smaller groups are pooled as '{OTHER_GROUPS}'. {DEFAULT_GROUP_ROWS} if absent.",
    )
    confidence: float | None = Field(
        default=None,
        gt=0.5,
        lt=1,
        description="confidence makes of the bounds tests: passed only if worse values are excluded at this "
        "confidence. Absent: the estimates alone are compared.",
    )
    against: Against | None = Field(
        default=None,
        description="against Baseline or Anchor: which of the two the bounds of regressions and a winRate are held "
        "against; absent: each that the Evaluation has.",
    )

    @property
    def task(self) -> str:
        return self.metric.partition("/")[0]

    @property
    def result(self) -> str:
        return self.metric.partition("/")[2]

    @property
    def against_baseline(self) -> bool:
        bounds = self.maximum_regression, self.maximum_relative_regression
        return any(each is not None for each in (*bounds, self.maximum_worse_ratio, self.maximum_group_regression))

    def sides(self, bound: str, *, anchored: bool) -> tuple[Against, ...]:
        """Return what a bound is held against, one test each; `Baseline` alone of one that compares nothing.

        A `winRate` is a comparison by itself: a judge has seen both answers.
        """
        if bound not in OF_COMPARISON and self.result != "winRate":
            return (Against.BASELINE,)
        if self.against is not None:
            return (self.against,)
        return (Against.BASELINE, Against.ANCHOR) if anchored else (Against.BASELINE,)

    @property
    def by_group(self) -> bool:
        bounds = self.maximum_group_gap, self.maximum_group_regression, self.maximum_odds_gap
        return any(each is not None for each in bounds)

    @property
    def limits(self) -> dict[str, float]:
        """Return the limits that are set, by the name of the bound, in the order of BOUNDS."""
        limits = {
            "minimum": self.minimum,
            "maximum": self.maximum,
            "maximumRegression": self.maximum_regression,
            "maximumRelativeRegression": self.maximum_relative_regression,
            "maximumGroupGap": self.maximum_group_gap,
            "maximumWorseRatio": self.maximum_worse_ratio,
            "maximumGroupRegression": self.maximum_group_regression,
            "maximumOddsGap": self.maximum_odds_gap,
        }
        return {name: limit for name in BOUNDS if (limit := limits[name]) is not None}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.limits:
            raise ValueError(f"a threshold needs one of {', '.join(BOUNDS)}")
        if self.minimum_group_rows is not None and not self.by_group:
            raise ValueError(OF_GROUPS)
        if self.worse_by is not None and self.maximum_worse_ratio is None:
            raise ValueError("worseBy belongs to maximumWorseRatio")
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise ValueError("minimum must not be above maximum")
        if self.against is not None and not self.against_baseline and self.result != "winRate":
            raise ValueError(NO_COMPARISON)
        return self
