"""Sweeps that mean nothing: refused before anything is begun, in the same words in a cluster and alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from trimtab_trainer.errors import SettingsInvalid
from trimtab_trainer.sweep.configuration import read_search

from tests.unit.domain.test_sweep import TEMPLATE, World

GRID = {"algorithm": {"type": "Grid"}}
SHORT = {"training": {"maxSteps": 50, "evaluateEverySteps": 10}}
ROWS = {"training": {"uri": "s3://data/train/"}}


def values(name: str, *chosen: Any) -> dict[str, Any]:
    return {"parameters": [{"name": name, "values": list(chosen)}]}


def span(name: str, minimum: float, maximum: float) -> dict[str, Any]:
    return {"parameters": [{"name": name, "range": {"minimum": minimum, "maximum": maximum}}]}


MALFORMED: dict[str, tuple[dict[str, Any], str]] = {
    "a value twice": (values("lora.rank", 8, 16, 8), "parameter lora.rank: 8 and 8 are the same; remove one"),
    "a whole number written in two ways": (values("lora.rank", 8, 8.0), "8 and 8.0 are the same"),
    "nothing written in two ways": (values("lora.dropout", 0.0, -0.0), "0.0 and -0.0 are the same"),
    "a section twice, once with a default": (
        values("lora", {"rank": 16}, {"rank": 16, "type": "LoRA"}),
        '{"rank": 16} and {"rank": 16, "type": "LoRA"} are the same',
    ),
    "a section twice, with other memory": (
        values("training", {"maxSteps": 4}, {"maxSteps": 4, "microBatchSize": 1}),
        "are the same",
    ),
    "names of a set in another order": (
        values("lora.targetModules", ["q_proj", "v_proj"], ["v_proj", "q_proj"]),
        '["q_proj", "v_proj"] and ["v_proj", "q_proj"] are the same; remove one',
    ),
    "names of a set in another order in a section": (
        values("lora", *({"rank": 8, "targetModules": names} for names in (["k_proj", "a"], ["a", "k_proj"]))),
        "are the same; remove one",
    ),
    "a section with a field that is none": (
        values("lora", {"rang": 8}),
        'parameter lora: {"rang": 8} is refused: rang',
    ),
    "a field that is none, deep in a section": (
        values("dataset", {**ROWS, "validation": {"fraction": 0.1}, "balance": {"column": "topic", "maximun": 2}}),
        "is refused: balance.maximun",
    ),
    "no number": (values("training.learningRate", float("nan"), 1e-4), "training.learningRate: NaN is no number"),
    "no end": (values("training.learningRate", 1e-4, float("-inf")), "training.learningRate: -Infinity is no number"),
    "no number in a section": (values("lora", {"dropout": float("nan")}), 'lora: {"dropout": NaN} is no number'),
    "nothing": (values("lora.rank", None, 8), "parameter lora.rank: null is refused"),
    "truth for a number": (values("lora.rank", True, 8), "parameter lora.rank: true is refused"),
    "a number in quotes": (values("lora.rank", "8", 16), 'parameter lora.rank: "8" is refused'),
    "a list of another type": (values("lora.targetModules", [1]), "parameter lora.targetModules: [1] is refused"),
    "rows without those that are held out": (
        values("dataset", ROWS),
        f'parameter dataset: {{"training": {{"uri": "{ROWS["training"]["uri"]}"}}}} has no validation',
    ),
    "other rows that are held out": (
        values("dataset", *({**ROWS, "validation": {"fraction": share}} for share in (0.1, 0.2))),
        "parameter dataset: dataset.validation decides which rows",
    ),
    "a grid without an end": ({**span("training.seed", 0, 2_147_483_647), **GRID}, "a grid of 2,147,483,648 points"),
    "a grid of more than a sweep has": (
        {
            "parameters": [
                {"name": "lora.rank", "values": [4, 8, 16]},
                {"name": "training.seed", "range": {"minimum": 1, "maximum": 67}},
            ],
            **GRID,
        },
        "a grid of 201 points, and a sweep has 200 trials at most; list fewer values, or take TPE",
    ),
    "a field of a section that lacks another": (
        values("dataset.balance.maximum", 1, 2),
        "template.spec.dataset.balance.column: Field required",
    ),
    "an index": (
        values("lora.targetModules[0]", "q_proj"),
        "name must be the path of a field, such as training.learningRate; lists have no indices",
    ),
    "a name of other letters": (values("träining.seed", 1), "such as training.learningRate"),
    "a final of a split that the data does not have": (
        {
            "final": {
                "evaluation": {
                    "tasks": [{"name": "heldout", "type": "Perplexity", "dataset": {"split": "Test"}}],
                    "metric": "heldout/perplexity",
                }
            }
        },
        "dataset.split of final needs template.spec.dataset.test",
    ),
    "the worst loss": ({"objective": {"direction": "Maximize"}}, "of validationLoss less is better"),
}


def in_a_cluster(spec: dict[str, Any]) -> str:
    try:
        world = World(**spec).settle()
    except ValueError as error:  # the API server takes no such object
        return str(error)
    assert (world.state, world.created) == ("SpecInvalid", [])
    return world.message


def alone(folder: Path, spec: dict[str, Any], **metadata: Any) -> str:
    file = folder / "sweep.yaml"
    body = {
        "kind": "FineTuneSweep",
        "metadata": {"name": "guide", **metadata},
        "spec": {"template": {"spec": TEMPLATE}, "parameters": [{"name": "lora.rank", "values": [8, 16]}], **spec},
    }
    file.write_text(yaml.safe_dump(body, allow_unicode=True))
    with pytest.raises(SettingsInvalid) as refused:
        read_search(file)
    return refused.value.message


@pytest.mark.parametrize(("spec", "words"), MALFORMED.values(), ids=MALFORMED)
def test_it_is_named_in_the_same_words_everywhere(tmp_path: Path, spec: dict[str, Any], words: str) -> None:
    assert words in in_a_cluster(spec)
    assert words in alone(tmp_path, spec)


NAMES = {
    "longer than trials leave room for": ("a" * 33, "at most 32 characters"),
    "of a path": ("../../etc", "lowercase letters"),
    "of markup": ("<script>", "lowercase letters"),
    "of lines": ("a\nb", "lowercase letters"),
    "in capitals": ("Guide", "lowercase letters"),
    "of other letters": ("führer", "lowercase letters"),
    "a number": (7, "lowercase letters"),
}


@pytest.mark.parametrize(("name", "words"), NAMES.values(), ids=NAMES)
def test_a_name_that_no_sweep_of_a_cluster_has_is_refused_alone_too(tmp_path: Path, name: Any, words: str) -> None:
    assert words in alone(tmp_path, {}, name=name)
