"""Cases of the CEL rules of FineTuneSweeps, and those of FineTuneJobs at the place where they stand in a sweep."""

from __future__ import annotations

from trimtab_operator.api.finetunesweep import PRUNED_BY_LOSS, RUNGS_ARE_VALIDATED
from trimtab_operator.api.sweep_judging import NO_JUDGES
from trimtab_trainer.contract.evaluation import NO_ANCHOR, NO_ODDS
from trimtab_trainer.contract.settings import NO_ADAPTER, NOT_QUANTIZED, ONLY_SFT
from trimtab_trainer.contract.sweeps.checks import ADAPTERS_JUDGED, NOTHING_OF_LORA
from trimtab_trainer.contract.sweeps.settings import IS_A_PATH

from tests.component.crd_samples import Body, change
from tests.component.evaluation_rule_cases import EVALUATION_CASES
from tests.component.finetunesweep_samples import FINAL, FULL, MINIMAL, OBJECTIVE
from tests.component.rule_cases import FINETUNEJOB_CASES, Case, Rule

HERE = "spec.template.spec"
FRACTION, URI, FOLDS = {"fraction": 0.1}, {"uri": "s3://data/held-out/"}, {"folds": 3, "fold": 0}


OF_ANY = change(MINIMAL, {"spec.parameters": [{"name": "training.learningRate", "values": [0.1, 0.2]}]})
"""It searches nothing of an adapter."""


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
    if message in (NO_ADAPTER, NOT_QUANTIZED, ONLY_SFT):
        given = OF_ANY
    if case.given is not None:
        given = {**FULL, "spec": {**FULL["spec"], "template": {"spec": case.given["spec"]}}}
    return Case(refused, passed, given=given)


EMBEDDED: dict[Rule, Case] = {
    (HERE + path.removeprefix("spec"), message): _embedded(message, case)
    for (path, message), case in FINETUNEJOB_CASES.items()
    if path.startswith("spec")
}

JUDGED = change(MINIMAL, {f"{HERE}.dataset.test": FRACTION, "spec.objective": {"evaluation": OBJECTIVE["evaluation"]}})
HELD_OUT = OBJECTIVE["evaluation"]["tasks"]
ENDS = change(
    MINIMAL,
    {
        f"{HERE}.dataset.test": FRACTION,
        "spec.final": {"evaluation": {"tasks": HELD_OUT, "metric": "heldout/perplexity"}},
    },
)
ASKED = ("spec.tasks", "spec.thresholds", "spec.baseline")
"""The fields of an Evaluation that a sweep has too."""
OF_THRESHOLDS = (
    "maximumRegression, maximumRelativeRegression, maximumWorseRatio and maximumGroupRegression need baseline",
    "the first part of every threshold's metric must be the name of a task",
    "maximumGroupGap and maximumGroupRegression need groupBy in their task",
    NO_ODDS,
)


def _asked(section: str, changes: Body) -> Body:
    """Return changes of an Evaluation's spec as changes of what a sweep asks; the metric follows the tasks."""
    made = {f"spec.{section}.evaluation{path.removeprefix('spec')}": value for path, value in changes.items()}
    if tasks := changes.get("spec.tasks"):
        made[f"spec.{section}.evaluation.metric"] = f"{tasks[0]['name']}/perplexity"
    for path, value in made.items():
        if path.endswith(".thresholds"):
            made[path] = [{"confidence": 0.9, **each} for each in value]
    return made


def _without_judge(changes: Body) -> Body:
    """Return changes without the judge of a Judge task, which no sweep has."""
    if not _is_judged(changes):
        return changes
    return {path: value for path, value in changes.items() if path not in ("spec.judge", "spec.baseline")}


def _is_judged(changes: Body) -> bool:
    return any(each["type"] == "Judge" for each in changes.get("spec.tasks", ()))


def _judging(section: str, given: Body, path: str, case: Case) -> tuple[str, Case]:
    refused, passed = (
        [
            _asked(section, changes)
            for changes in map(_without_judge, every)
            if all(each.startswith(ASKED if section == "final" else "spec.tasks") for each in changes)
        ]
        for every in (case.refused, [each for each in case.passed if not _is_judged(each)])
    )
    return f"spec.{section}.evaluation{path.removeprefix('spec')}", Case(refused, passed or [{}], given=given)


JUDGING: dict[Rule, Case] = {
    (where, message): made
    for section, given, fields in (("objective", JUDGED, ASKED[:1]), ("final", ENDS, ASKED))
    for (path, message), case in EVALUATION_CASES.items()
    if path.startswith(fields) or (section == "final" and path == "spec" and message in OF_THRESHOLDS)
    for where, made in [_judging(section, given, path, case)]
}

JUDGE_TASK = {**HELD_OUT[0], "type": "Judge", "judging": {"instructions": "Prefer what is right."}}
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
    "final": ({**FINAL, "topTrials": 3}, ...),
}

FREE: Body = {"maxTrials": 9, "parallelTrials": 1, "suspend": False, "budget": ..., "retainTrials": "All"}

FINETUNESWEEP_CASES: dict[Rule, Case] = {
    **EMBEDDED,
    **JUDGING,
    ("spec", NOTHING_OF_LORA): Case(
        refused=[{f"{HERE}.lora": {"type": "None"}, f"{HERE}.quantization": {"type": "None"}}],
        passed=[
            {},
            {
                f"{HERE}.lora": {"type": "None"},
                f"{HERE}.quantization": {"type": "None"},
                "spec.parameters": [{"name": "training.learningRate", "values": [0.1]}],
            },
            {f"{HERE}.quantization": {"type": "None"}, "spec.parameters": [{"name": "lora.type", "values": ["None"]}]},
        ],
    ),
    ("spec", ADAPTERS_JUDGED): Case(
        refused=[
            {
                f"{HERE}.lora": {"type": "None"},
                f"{HERE}.quantization": {"type": "None"},
                f"{HERE}.dataset.test": FRACTION,
                section: {"evaluation": {"tasks": HELD_OUT, "metric": "heldout/perplexity"}},
            }
            for section in ("spec.final", "spec.objective")
        ],
        passed=[{f"{HERE}.lora": {"type": "None"}, f"{HERE}.quantization": {"type": "None"}}],
        given=OF_ANY,
    ),
    **{
        (f"spec.{section}.evaluation", NO_JUDGES): Case(
            refused=[_asked(section, {"spec.tasks": [JUDGE_TASK]})], passed=[{}], given=given
        )
        for section, given in (("objective", JUDGED), ("final", ENDS))
    },
    ("spec.objective", "metric and evaluation exclude each other; set one"): Case(
        refused=[{"spec.objective.metric": "bitsPerByte"}],
        passed=[{}, {"spec.objective": {"metric": "bitsPerByte"}}, {"spec.objective": ...}],
        given=change(JUDGED, {f"{HERE}.dataset.validation": FRACTION}),
    ),
    **{
        (f"spec.{section}.evaluation", "the first part of metric must be the name of a task"): Case(
            refused=[{f"spec.{section}.evaluation.metric": f"{name}/perplexity"} for name in ("heldou", "heldoutt")],
            passed=[{}, {f"spec.{section}.evaluation.metric": "heldout/bitsPerByte"}],
            given=given,
        )
        for section, given in (("objective", JUDGED), ("final", ENDS))
    },
    **{
        ("spec", f"dataset.split of {section} needs template.spec.dataset.test"): Case(
            refused=[{f"{HERE}.dataset.test": ...}],
            passed=[{}, {f"{HERE}.dataset.test": ..., **_asked(section, {"spec.tasks": FINAL["evaluation"]["tasks"]})}],
            given=given,
        )
        for section, given in (("objective", JUDGED), ("final", ENDS))
    },
    ("spec", "final must be judged on other rows than the objective; take dataset.uri in one of them"): Case(
        refused=[{"spec.final": ENDS["spec"]["final"]}], passed=[{}, {"spec.final": FINAL}], given=JUDGED
    ),
    (
        "spec.final.evaluation",
        "thresholds of the final need confidence: the best of several is better by chance",
    ): Case(
        refused=[{"spec.final.evaluation.thresholds": [{"metric": "heldout/perplexity", "maximum": 9}]}],
        passed=[{}, {"spec.final.evaluation.thresholds": FINAL["evaluation"]["thresholds"]}],
        given=ENDS,
    ),
    ("spec.final.evaluation", NO_ANCHOR): Case(
        refused=[
            {
                "spec.final.evaluation.thresholds": [
                    {"metric": "heldout/perplexity", "confidence": 0.9, "maximumRegression": 9, "against": each}
                ],
                "spec.final.evaluation.baseline": {"baseModel": True},
            }
            for each in ("Baseline", "Anchor")
        ],
        passed=[{}, {"spec.final.evaluation.thresholds": FINAL["evaluation"]["thresholds"]}],
        given=ENDS,
    ),
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
    ("spec", PRUNED_BY_LOSS): Case(
        refused=[
            {"spec.pruning": {}, "spec.objective": {"metric": "bitsPerByte"}},
            {"spec.pruning": {}, "spec.objective": {"evaluation": OBJECTIVE["evaluation"]}},
        ],
        passed=[{"spec.pruning": {}, "spec.objective": {"metric": "validationLoss"}}, {"spec.pruning": {}}],
    ),
    ("spec", "the objective needs template.spec.dataset.validation, or folds, or an evaluation"): Case(
        refused=[{f"{HERE}.dataset.validation": ...}],
        passed=[
            {},
            {f"{HERE}.dataset.validation": URI},
            {f"{HERE}.dataset.validation": ..., "spec.folds": 2},
            {
                f"{HERE}.dataset.validation": ...,
                f"{HERE}.dataset.test": FRACTION,
                "spec.objective": {"evaluation": OBJECTIVE["evaluation"]},
            },
        ],
    ),
    ("spec", "folds take the place of template.spec.dataset.validation; remove its fraction or uri"): Case(
        refused=[{"spec.folds": 2, f"{HERE}.dataset.validation": each} for each in (FRACTION, URI)],
        passed=[{"spec.folds": 2, f"{HERE}.dataset.validation": each} for each in (..., FOLDS)],
    ),
    (f"{PARAMETERS}[]", IS_A_PATH): Case(
        refused=[
            {PARAMETERS: [{"name": name, "values": [1]}]}
            for name in ("lora.targetModules[0]", "Lora.rank", "lora..rank", "lora.", "träining.seed", "lora/rank")
        ],
        passed=[{PARAMETERS: [{"name": name, "values": [1]}]} for name in ("lora.rank", "baseModel")],
    ),
    (f"{PARAMETERS}[].range", "minimum must be less than maximum"): Case(
        refused=[span(1, 1), span(2, 1)], passed=[span(1, 2), span(-2, 0.5)]
    ),
    (f"{PARAMETERS}[].range", "scale Log needs a minimum above 0"): Case(
        refused=[span(0, 1, scale="Log"), span(-1, 1, scale="Log")],
        passed=[span(0.1, 1, scale="Log"), span(0, 1, scale="Linear"), span(0, 1)],
    ),
}
