"""What is generated is fresh and says everything."""

from __future__ import annotations

from pathlib import Path

import pytest
from trimtab_operator.api import FINETUNEJOB_REASONS
from trimtab_operator.api.crd import finetunejob_crd, generated_files, main
from trimtab_operator.api.reasons import EXPLANATIONS
from trimtab_operator.api.reference import fields, nodes

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


def test_every_reason_is_explained_and_every_explanation_has_a_reason() -> None:
    assert set(EXPLANATIONS) == set(FINETUNEJOB_REASONS)
    assert all(explanation.meaning and explanation.next_step for explanation in EXPLANATIONS.values())


def test_the_page_names_every_field_rule_and_reason() -> None:
    page = (ROOT / "docs/api.md").read_text()
    root = finetunejob_crd()["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    for path, _, _ in fields(root):
        if path.startswith(("spec.", "status.")):
            assert f"`{path}`" in page or f"### {path}\n" in page, path
    for _, node in nodes(root):
        for rule in node.get("x-kubernetes-validations", []):
            assert rule["message"] in page
    for reason in FINETUNEJOB_REASONS:
        assert f"| `{reason}` |" in page
