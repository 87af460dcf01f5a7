"""Cases of the CEL rules of FineTuneSweeps, and those of FineTuneJobs at the place where they stand in a sweep."""

from __future__ import annotations

from trimtab_operator.api.finetunesweep import RUNGS_ARE_VALIDATED

from tests.component.crd_samples import Body
from tests.component.finetunesweep_samples import FULL
from tests.component.rule_cases import FINETUNEJOB_CASES, Case, Rule

HERE = "spec.template.spec"
FRACTION, URI, FOLDS = {"fraction": 0.1}, {"uri": "s3://data/held-out/"}, {"folds": 3, "fold": 0}


def _there(every: list[Body]) -> list[Body]:
    """Return changes of a FineTuneJob's spec as changes of a sweep's template."""
    return [
        {HERE + path.removeprefix("spec"): value for path, value in changes.items()}
        for changes in every
        if all(path.startswith("spec") for path in changes)
    ]


def _embedded(message: str, case: Case) -> Case:
    """Return the case of a rule in a sweep, which has rules of its own about where its trials' losses come from."""
    refused, passed = _there(case.refused), _there(case.passed)
    passed = [changes for changes in passed if f"{HERE}.dataset.validation" not in changes] or [{}]
    if "is immutable" in message:  # of the smallest sweep, which has no more than the defaults of these sections
        refused = [
            changes
            for changes in refused
            if ... not in changes.values() and f"{HERE}.dataset.validation" not in changes
        ]
        return Case(refused, [{}])
    if message == "training.earlyStopping needs dataset.validation":
        refused = [{**changes, f"{HERE}.dataset.validation": ..., "spec.folds": 2} for changes in refused]
    given = None
    if case.given is not None:
        given = {**FULL, "spec": {**FULL["spec"], "template": {"spec": case.given["spec"]}}}
    return Case(refused, passed, given=given)


EMBEDDED: dict[Rule, Case] = {
    (HERE + path.removeprefix("spec"), message): _embedded(message, case)
    for (path, message), case in FINETUNEJOB_CASES.items()
    if path.startswith("spec")
}

PARAMETERS = "spec.parameters"


def parameter(**given: object) -> Body:
    return {PARAMETERS: [{"name": "training.learningRate", **given}]}


def span(minimum: float, maximum: float, **more: str) -> Body:
    return parameter(range={"minimum": minimum, "maximum": maximum, **more})


IMMUTABLE: dict[str, tuple[object, ...]] = {
    "parameters": ([{"name": "lora.rank", "values": [8]}],),
    "algorithm": ({"type": "Grid", "seed": 1}, {"type": "Random", "seed": 2}),
    "objective": ({"metric": "validationLoss", "direction": "Minimize"},),
    "pruning": ({"minimumSteps": 200}, ...),
}

FREE: Body = {"maxTrials": 9, "parallelTrials": 1, "suspend": False, "budget": ..., "retainTrials": "All"}

FINETUNESWEEP_CASES: dict[Rule, Case] = {
    **EMBEDDED,
    ("", "name must have at most 32 characters"): Case(
        refused=[{"metadata.name": "a" * 33}], passed=[{"metadata.name": "a" * 32}]
    ),
    **{
        ("spec", f"{field} is immutable; create another FineTuneSweep instead"): Case(
            refused=[{f"spec.{field}": value} for value in values],
            passed=[
                {},
                {"spec.maxTrials": 9},
                {"spec.parallelTrials": 1},
                {"spec.suspend": False},
                {"spec.budget": ...},
                {"spec.activeDeadlineSeconds": 60},
            ],
            given=FULL,
        )
        for field, values in IMMUTABLE.items()
    },
    ("spec", "folds is immutable; create another FineTuneSweep instead"): Case(
        refused=[{"spec.folds": 2, f"{HERE}.dataset.validation": ...}], passed=[{}], given=FULL
    ),
    ("spec", RUNGS_ARE_VALIDATED): Case(
        refused=[
            {"spec.pruning": {"minimumSteps": 75}},
            {"spec.pruning": {}, f"{HERE}.training": {"evaluateEverySteps": 100}},
        ],
        passed=[
            {"spec.pruning": {}},
            {"spec.pruning": {"minimumSteps": 75}, f"{HERE}.training": {"evaluateEverySteps": 25}},
        ],
    ),
    ("spec", "the metric validationLoss needs template.spec.dataset.validation, or folds"): Case(
        refused=[{f"{HERE}.dataset.validation": ...}],
        passed=[{}, {f"{HERE}.dataset.validation": URI}, {f"{HERE}.dataset.validation": ..., "spec.folds": 2}],
    ),
    ("spec", "folds take the place of template.spec.dataset.validation; remove its fraction or uri"): Case(
        refused=[{"spec.folds": 2, f"{HERE}.dataset.validation": each} for each in (FRACTION, URI)],
        passed=[{"spec.folds": 2, f"{HERE}.dataset.validation": each} for each in (..., FOLDS)],
    ),
    (f"{PARAMETERS}[].range", "minimum must be less than maximum"): Case(
        refused=[span(1, 1), span(2, 1)], passed=[span(1, 2), span(-2, 0.5)]
    ),
    (f"{PARAMETERS}[].range", "scale Log needs a minimum above 0"): Case(
        refused=[span(0, 1, scale="Log"), span(-1, 1, scale="Log")],
        passed=[span(0.1, 1, scale="Log"), span(0, 1, scale="Linear"), span(0, 1)],
    ),
}
