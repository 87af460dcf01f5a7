"""What is generated is fresh and says everything."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from trimtab_operator.api import EVALUATION_REASONS, FINETUNEJOB_REASONS, PASSED, SUCCEEDED, PassedReason
from trimtab_operator.api.crd import generated_files, main, schema_of
from trimtab_operator.api.reference import fields, nodes
from trimtab_operator.api.resources import EVALUATION, FINETUNEJOB, RESOURCES, Resource

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("path", generated_files())
def test_the_file_is_fresh(path: str) -> None:
    assert (ROOT / path).read_text() == generated_files()[path], "run `make generate`"


def test_no_other_crd_lies_about() -> None:
    generated = {Path(path).name for path in generated_files() if path.startswith("crds/")}
    assert {path.name for path in (ROOT / "crds").iterdir()} == generated


def test_check_fails_on_a_stale_file_and_write_repairs_it(tmp_path: Path) -> None:
    assert main(["--check", "--root", str(tmp_path)]) == 1
    assert main(["--write", "--root", str(tmp_path)]) == 0
    assert main(["--check", "--root", str(tmp_path)]) == 0
    stale = next(tmp_path.rglob("api.md"))
    stale.write_text(stale.read_text() + "by hand\n")
    assert main(["--check", "--root", str(tmp_path)]) == 1


REASONS: list[tuple[Resource, str, set[str]]] = [
    (FINETUNEJOB, SUCCEEDED, set(FINETUNEJOB_REASONS)),
    (EVALUATION, SUCCEEDED, set(EVALUATION_REASONS)),
    (EVALUATION, PASSED, set(PassedReason)),
]


def page() -> str:
    return (ROOT / "docs/api.md").read_text()


def of_kind(resource: Resource) -> str:
    """Return the part of the page that is on one kind."""
    (part,) = [part for part in page().split("\n## ")[1:] if part.startswith(f"{resource.kind}\n")]
    return part


@pytest.mark.parametrize(("resource", "condition", "reasons"), REASONS)
def test_every_reason_is_explained_and_every_explanation_has_a_reason(
    resource: Resource, condition: str, reasons: set[str]
) -> None:
    sentence, explanations = resource.reasons[condition]
    assert sentence
    assert set(explanations) == reasons
    assert all(explanation.meaning and explanation.next_step for explanation in explanations.values())


def test_every_condition_with_reasons_is_among_these() -> None:
    assert {(each.kind, condition) for each in RESOURCES for condition in each.reasons} == {
        (each.kind, condition) for each, condition, _ in REASONS
    }


@pytest.mark.parametrize(("resource", "condition", "reasons"), REASONS)
def test_the_page_names_every_reason(resource: Resource, condition: str, reasons: set[str]) -> None:
    _, _, part = of_kind(resource).partition(f"### {resource.kind}: reasons of `{condition}`")
    for reason in reasons:
        assert f"| `{reason}` |" in part


@pytest.mark.parametrize("resource", RESOURCES, ids=lambda each: each.kind)
def test_the_page_names_every_field_and_rule(resource: Resource) -> None:
    part = of_kind(resource)
    elsewhere = tuple(f"{path}." for path in re.findall(r"The same fields as in \[FineTuneJob: (.+?)\]", part))
    for path, _, _ in fields(schema_of(resource)):
        if path.startswith(("spec.", "status.")):
            told = page() if path.replace("[]", "").startswith(elsewhere) else part
            assert f"`{path}`" in told or f"### {resource.kind}: {path}\n" in told, path
    for _, node in nodes(schema_of(resource)):
        for rule in node.get("x-kubernetes-validations", []):
            assert rule["message"] in part


def test_what_the_page_refers_to_is_the_same() -> None:
    """Long tables that kinds share are written once."""
    references = re.findall(r"^### Evaluation: (.+)\n\n.+\n\nThe same fields as in \[FineTuneJob: (.+)\]", page(), re.M)
    assert references == [("spec.template", "spec.template"), ("status.attempts", "status.attempts")]
    for path, _ in references:
        ours, theirs = ([field for field in fields(schema_of(each)) if field[0].startswith(path)] for each in RESOURCES)
        assert ours[1:] == theirs[1:], "all but the descriptions of the sections themselves"
