"""How an adapter learns: from answers, or from which answers are preferred to others."""

from __future__ import annotations

from enum import StrEnum
from typing import Self

from pydantic import ConfigDict, Field, model_validator

from .model import Model, Rule, rules


class Method(StrEnum):
    SFT = "SFT"
    DPO = "DPO"
    KTO = "KTO"
    ORPO = "ORPO"

    @property
    def is_paired(self) -> bool:
        """Tell whether a row has two answers, of which one is preferred."""
        return self in (Method.DPO, Method.ORPO)

    @property
    def answers(self) -> int:
        """How many answers are compared: one row of data has so many sequences, which stay together."""
        return 2 if self.is_paired else 1

    @property
    def needs_reference(self) -> bool:
        """Tell whether the loss compares with the model as it was before training."""
        return self in (Method.DPO, Method.KTO)


class PreferenceLoss(StrEnum):
    SIGMOID = "Sigmoid"
    HINGE = "Hinge"
    IPO = "IPO"
    ROBUST = "Robust"


NO_PREFERENCE = "preference shapes the loss of DPO, KTO and ORPO: set method, or remove preference"
ONLY_DPO = "preference.loss is DPO's: remove it, or set method: DPO"
ONLY_KTO = "preference.desirableWeight and undesirableWeight are KTO's: remove them, or set method: KTO"
ONLY_ROBUST = "preference.labelSmoothing is that of loss: Robust: remove it, or set loss: Robust"
NOTHING_COUNTS = (
    "preference.desirableWeight and undesirableWeight are both 0, so no row counts: give one of them a weight"
)
ANSWERS_ONLY = "lossOn is SFT's: DPO, KTO and ORPO go by the answers alone"

METHOD_RULES: tuple[Rule, ...] = (
    ("!has(self.preference) || (has(self.method) && self.method != 'SFT')", NO_PREFERENCE),
    (
        "!has(self.preference) || !has(self.preference.loss) || self.preference.loss == 'Sigmoid' || "
        "(has(self.method) && self.method == 'DPO')",
        ONLY_DPO,
    ),
    (
        "!has(self.preference) || (has(self.method) && self.method == 'KTO') || "
        "((!has(self.preference.desirableWeight) || self.preference.desirableWeight == 1.0) && "
        "(!has(self.preference.undesirableWeight) || self.preference.undesirableWeight == 1.0))",
        ONLY_KTO,
    ),
    (
        "!has(self.method) || self.method == 'SFT' || !has(self.lossOn) || self.lossOn == 'Completions'",
        ANSWERS_ONLY,
    ),
)
"""Of training settings."""


PAIRS_FORMAT, LABELLED_FORMAT = "Preference", "UnpairedPreference"
WRONG_FORMAT = (
    "training.method and dataset.format do not go together: DPO and ORPO take Preference, KTO takes "
    "UnpairedPreference, and SFT all others"
)
NO_CUTTING = "dataset.cleaning.tooLong: Truncate cuts answers, and DPO, KTO and ORPO compare whole ones: remove it"
_METHOD = "(has(self.training) && has(self.training.method) ? self.training.method : 'SFT')"

DATA_RULES: tuple[Rule, ...] = (
    (
        "!has(self.dataset.format) || self.dataset.format == 'Auto' || "
        f"(self.dataset.format == '{PAIRS_FORMAT}' ? {_METHOD} in ['DPO', 'ORPO'] : "
        f"self.dataset.format == '{LABELLED_FORMAT}' ? {_METHOD} == 'KTO' : {_METHOD} == 'SFT')",
        WRONG_FORMAT,
    ),
    (
        f"{_METHOD} == 'SFT' || !has(self.dataset.cleaning) || !has(self.dataset.cleaning.tooLong) || "
        "self.dataset.cleaning.tooLong != 'Truncate'",
        NO_CUTTING,
    ),
)
"""Of what has both a dataset and training settings."""


class PreferenceSettings(Model):
    """The loss of a preference method."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "!has(self.labelSmoothing) || self.labelSmoothing == 0.0 || (has(self.loss) && self.loss == 'Robust')",
                ONLY_ROBUST,
            ),
            (
                "!has(self.desirableWeight) || self.desirableWeight > 0.0 || !has(self.undesirableWeight) || "
                "self.undesirableWeight > 0.0",
                NOTHING_COUNTS,
            ),
        )
    )

    beta: float = Field(
        default=0.1,
        gt=0,
        le=100,
        description="beta is how closely DPO and KTO hold on to the model as it was before training: more is closer; "
        "of ORPO it is the weight of the odds ratio, its paper's lambda.",
    )
    loss: PreferenceLoss = Field(
        default=PreferenceLoss.SIGMOID,
        description="loss of DPO: Sigmoid is that of its paper; Hinge learns nothing of pairs that are far apart, "
        "IPO draws all to one distance; Robust is Sigmoid for labels of which a share of labelSmoothing is wrong.",
    )
    label_smoothing: float = Field(
        default=0.0,
        ge=0,
        # Not below 0.5: the API server compares whole numbers, 0 too, with the bound cut to a whole number.
        le=0.49,
        description="labelSmoothing is the share of pairs whose order is wrong.",
    )
    desirable_weight: float = Field(
        default=1.0, ge=0, le=1000, description="desirableWeight of KTO's rows with the label true."
    )
    undesirable_weight: float = Field(
        default=1.0, ge=0, le=1000, description="undesirableWeight of KTO's rows with the label false."
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.label_smoothing and self.loss is not PreferenceLoss.ROBUST:
            raise ValueError(ONLY_ROBUST)
        if not (self.desirable_weight or self.undesirable_weight):
            raise ValueError(NOTHING_COUNTS)
        return self


def check_method(method: Method, preference: PreferenceSettings | None, *, completions_only: bool) -> None:
    """Check what the rules say of a method and the settings beside it.

    Raises:
        ValueError: they do not go together.
    """
    if method is not Method.SFT and not completions_only:
        raise ValueError(ANSWERS_ONLY)
    if preference is None:
        return
    if method is Method.SFT:
        raise ValueError(NO_PREFERENCE)
    if method is not Method.DPO and preference.loss is not PreferenceLoss.SIGMOID:
        raise ValueError(ONLY_DPO)
    if method is not Method.KTO and (preference.desirable_weight, preference.undesirable_weight) != (1.0, 1.0):
        raise ValueError(ONLY_KTO)


def check_data(method: Method, row_format: str, *, cuts: bool) -> None:
    """Check what the rules say of a method and the rows that it is to learn.

    Args:
        method: the method.
        row_format: `dataset.format`.
        cuts: rows that are too long are cut.

    Raises:
        ValueError: they do not go together.
    """
    wanted = {Method.DPO: PAIRS_FORMAT, Method.ORPO: PAIRS_FORMAT, Method.KTO: LABELLED_FORMAT}.get(method)
    named = row_format if row_format in (PAIRS_FORMAT, LABELLED_FORMAT) else None
    if row_format != "Auto" and named != wanted:
        raise ValueError(WRONG_FORMAT)
    if method is not Method.SFT and cuts:
        raise ValueError(NO_CUTTING)
