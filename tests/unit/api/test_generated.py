"""What is generated is fresh and says everything."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from trimtab_agent.failures import FailureReason
from trimtab_operator.api import (
    EVALUATION_REASONS,
    EXPORT_REASONS,
    FINETUNEJOB_REASONS,
    NOT_UNDERSTOOD,
    PASSED,
    PROGRESSING,
    READY,
    SUCCEEDED,
    VERIFIED,
    WARNED,
    PassedReason,
    RolloutReason,
    WarnedReason,
)
from trimtab_operator.api.adapterexport import ADAPTEREXPORT
from trimtab_operator.api.adapterrollout import ADAPTERROLLOUT
from trimtab_operator.api.definitions.crd import schema_of
from trimtab_operator.api.definitions.customresource import CustomResource
from trimtab_operator.api.definitions.reference import fields, nodes
from trimtab_operator.api.evaluation import EVALUATION
from trimtab_operator.api.finetunejob import FINETUNEJOB
from trimtab_operator.api.finetunesweep import FINETUNESWEEP, REPORTED, ReportReason, SweepState
from trimtab_operator.api.review import RECORDED, REVIEW, ReviewReason
from trimtab_operator.api.status.rollout_reasons import POD_EXPLANATIONS
from trimtab_operator.api.tracking import TRACKED, TrackedReason
from trimtab_operator.domain.adapterrollout.delivery.waves import OF_THE_POD
from trimtab_operator.domain.adapterrollout.rollback import HARM
from trimtab_operator.generate import CUSTOM_RESOURCES, generated_files, main

ROOT = Path(__file__).parents[3]
AGENT = ROOT / "operator/src/trimtab_agent"
NOT_FOR_DOCUMENTS = {"NotFound", "QueryInvalid"}
"""What an agent answers to other requests than those that bring a document."""


@pytest.fixture(scope="module")
def generated() -> dict[str, str]:
    """Return every generated file, by its path: it takes seconds, and only one worker needs them."""
    return generated_files()


def test_every_file_is_fresh(generated: dict[str, str]) -> None:
    stale = [path for path, text in generated.items() if (ROOT / path).read_text() != text]
    assert stale == [], "run `make generate`"


def test_no_other_crd_lies_about(generated: dict[str, str]) -> None:
    names = {Path(path).name for path in generated if path.startswith("crds/")}
    assert {path.name for path in (ROOT / "crds").iterdir()} == names


def test_check_fails_on_a_stale_file_and_write_repairs_it(
    generated: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("trimtab_operator.generate.generated_files", lambda: generated)
    assert main(["--check", "--root", str(tmp_path)]) == 1
    assert main(["--write", "--root", str(tmp_path)]) == 0
    assert main(["--check", "--root", str(tmp_path)]) == 0
    stale = next(tmp_path.rglob("api.md"))
    stale.write_text(stale.read_text() + "by hand\n")
    assert main(["--check", "--root", str(tmp_path)]) == 1


def refusals() -> set[str]:
    """Return the words with which the agent refuses documents, as they stand in its source."""
    calls = [
        node
        for path in AGENT.rglob("*.py")
        if path.parent.name != "guard"  # it refuses requests of clients
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "Refused"
    ]
    words = {str(word.value) for call in calls for word in call.args[1:2] if isinstance(word, ast.Constant)}
    assert len(words) > 10
    return words - NOT_FOR_DOCUMENTS


OF_TRAFFIC = {RolloutReason.ERROR_RATIO, RolloutReason.LATENCY}
OF_PODS = {RolloutReason.UNREACHABLE, RolloutReason.ENGINE_DOWN, RolloutReason.ENGINE_HARMED}
OF_ROLLOUTS = set(RolloutReason) - OF_TRAFFIC - OF_PODS
OF_VERIFIED = {
    RolloutReason.WAITING_FOR_SOURCE,
    RolloutReason.SERVING,
    RolloutReason.MOVING,
    RolloutReason.LOADING,
    RolloutReason.NO_PODS,
}

REASONS: list[tuple[CustomResource, str, set[str]]] = [
    (FINETUNEJOB, SUCCEEDED, set(FINETUNEJOB_REASONS)),
    (EVALUATION, SUCCEEDED, set(EVALUATION_REASONS)),
    (EVALUATION, PASSED, set(PassedReason)),
    (FINETUNEJOB, WARNED, set(WarnedReason)),
    (EVALUATION, WARNED, set(WarnedReason)),
    (FINETUNEJOB, TRACKED, set(TrackedReason)),
    (ADAPTEREXPORT, SUCCEEDED, set(EXPORT_REASONS)),
    (ADAPTEREXPORT, WARNED, set(WarnedReason)),
    (FINETUNESWEEP, SUCCEEDED, set(SweepState)),
    (FINETUNESWEEP, REPORTED, set(ReportReason)),
    (ADAPTERROLLOUT, READY, set(OF_ROLLOUTS)),
    (ADAPTERROLLOUT, PROGRESSING, {each.value for each in OF_ROLLOUTS if each is not RolloutReason.NOT_UNDERSTOOD}),
    (ADAPTERROLLOUT, VERIFIED, set(OF_VERIFIED)),
    (REVIEW, RECORDED, {*ReviewReason, NOT_UNDERSTOOD}),
    (ADAPTERROLLOUT, "podReasons", {*OF_TRAFFIC, *OF_PODS, *FailureReason, *refusals()}),
]


def page() -> str:
    return (ROOT / "docs/api.md").read_text()


def of_kind(resource: CustomResource) -> str:
    """Return the part of the page that is on one kind."""
    (part,) = [part for part in page().split("\n## ")[1:] if part.startswith(f"{resource.kind}\n")]
    return part


@pytest.mark.parametrize(("resource", "condition", "reasons"), REASONS)
def test_every_reason_is_explained_and_every_explanation_has_a_reason(
    resource: CustomResource, condition: str, reasons: set[str]
) -> None:
    sentence, explanations = resource.reasons[condition]
    assert sentence
    assert set(explanations) == reasons
    assert all(explanation.meaning and explanation.next_step for explanation in explanations.values())


def test_every_condition_with_reasons_is_among_these() -> None:
    assert {(each.kind, condition) for each in CUSTOM_RESOURCES for condition in each.reasons} == {
        (each.kind, condition) for each, condition, _ in REASONS
    }


def test_what_is_said_to_be_the_adapters_fault_is_what_takes_it_back() -> None:
    blamed = {reason for reason in FailureReason if POD_EXPLANATIONS[reason].when == "adapter"}
    assert blamed == set(FailureReason) - OF_THE_POD
    assert blamed >= HARM


@pytest.mark.parametrize(("resource", "condition", "reasons"), REASONS)
def test_the_page_names_every_reason(resource: CustomResource, condition: str, reasons: set[str]) -> None:
    _, _, part = of_kind(resource).partition(f"### {resource.kind}: reasons of `{condition}`")
    for reason in reasons:
        assert f"| `{reason}` |" in part


@pytest.mark.parametrize("resource", CUSTOM_RESOURCES, ids=lambda each: each.kind)
def test_the_page_names_every_field_and_rule(resource: CustomResource) -> None:
    part = of_kind(resource)
    elsewhere = tuple(f"{path}." for path in re.findall(r"The same fields as in \[FineTuneJob: (.+?)\]", part))
    for path, _, _ in fields(schema_of(resource)):
        if path.startswith(tuple(f"{each}." for each in resource.embeds)):
            continue  # told where they belong
        if path.startswith(("spec.", "status.")):
            told = page() if path.replace("[]", "").startswith(elsewhere) else part
            assert f"`{path}`" in told or f"### {resource.kind}: {path}\n" in told, path
    for path, node in nodes(schema_of(resource)):
        for rule in node.get("x-kubernetes-validations", []):
            assert rule["message"] in (page() if path.startswith(tuple(resource.embeds)) else part)


def test_what_the_page_refers_to_is_the_same() -> None:
    """Long tables that kinds share are written once."""
    references = re.findall(r"^### Evaluation: (.+)\n\n.+\n\nThe same fields as in \[FineTuneJob: (.+)\]", page(), re.M)
    assert references == [("spec.template", "spec.template"), ("status.attempts", "status.attempts")]
    for path, _ in references:
        both = (FINETUNEJOB, EVALUATION)
        ours, theirs = ([field for field in fields(schema_of(each)) if field[0].startswith(path)] for each in both)
        assert ours[1:] == theirs[1:], "all but the descriptions of the sections themselves"
