"""What the documents say exists: links, make targets, reasons, dependencies, and examples that the models take."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.metrics import MetricWrapperBase
from trimtab_operator.api import (
    EVALUATION_REASONS,
    EXPORT_REASONS,
    FINETUNEJOB_REASONS,
    AdapterRollout,
    Evaluation,
    FineTuneJob,
    PassedReason,
)
from trimtab_operator.api.review import Review
from trimtab_operator.api.status.rollout_reasons import POD_EXPLANATIONS, READY_EXPLANATIONS
from trimtab_operator.domain.kinds import KINDS
from trimtab_operator.runtime import metrics
from trimtab_trainer.contract import EvaluationConfig, EvaluationTask, ExitCode, RunConfig, Threshold

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINK = re.compile(r"\]\(([^)\s]+)\)")
CODE = re.compile(r"`[^`\n]*`")
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
METADATA = {"name": "generated", "namespace": "default", "uid": "0"}
README_LINES = 120


def named(document: Path) -> str:
    return document.relative_to(ROOT).as_posix()


def prose(document: Path) -> str:
    """Return a document without its fenced blocks."""
    return FENCE.sub("", document.read_text())


def blocks(document: Path, language: str) -> list[str]:
    return [text for found, text in FENCE.findall(document.read_text()) if found == language]


def anchors(document: Path) -> set[str]:
    """Return the anchors of a document's headings, as GitHub makes them."""
    headings = re.findall(r"^#+ (.+)$", prose(document), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_every_relative_link_resolves(document: Path) -> None:
    for target in LINK.findall(CODE.sub("", prose(document))):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        file = (document.parent / path).resolve() if path else document
        assert file.exists(), f"{target} is not there"
        assert file.is_relative_to(ROOT), f"{target} leaves the repository"
        if anchor:
            assert anchor in anchors(file), f"{target}: no such heading"


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_every_make_target_exists(document: Path) -> None:
    targets = set(re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    text = document.read_text()
    mentioned = {*re.findall(r"`make ([a-z0-9-]+)`", text), *re.findall(r"^make ([a-z0-9-]+)", text, re.MULTILINE)}
    assert mentioned <= targets


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_every_object_of_ours_is_one(document: Path) -> None:
    for text in blocks(document, "yaml"):
        for body in yaml.safe_load_all(text):
            if isinstance(body, dict) and body.get("kind") == "FineTuneJob":
                FineTuneJob.parse({**body, "metadata": {**METADATA, **body["metadata"]}})
            if isinstance(body, dict) and body.get("kind") == "Review":
                Review.parse({**body, "metadata": {**METADATA, **body["metadata"]}})
            if isinstance(body, dict) and body.get("kind") == "Evaluation":
                Evaluation.parse({**body, "metadata": {**METADATA, **body["metadata"]}}).spec.check()
            if isinstance(body, dict) and body.get("kind") == "AdapterRollout":
                AdapterRollout.parse({**body, "metadata": {**METADATA, **body["metadata"]}})


@pytest.mark.parametrize("document", DOCUMENTS, ids=named)
def test_every_part_of_an_evaluation_is_one(document: Path) -> None:
    """Tasks and thresholds that are shown alone."""
    for text in blocks(document, "yaml"):
        for body in yaml.safe_load_all(text):
            if isinstance(body, dict) and body.keys() <= {"tasks", "thresholds"}:
                for task in body.get("tasks", []):
                    EvaluationTask.model_validate(task)
                for threshold in body.get("thresholds", []):
                    Threshold.model_validate(threshold)


def test_the_run_of_the_trainer_alone_is_one() -> None:
    bodies: list[dict[str, Any]] = [yaml.safe_load(text) for text in blocks(ROOT / "docs/trainer.md", "yaml")]
    runs = [body for body in bodies if "output" in body]
    assert runs
    for body in runs:
        RunConfig.model_validate(body)


def test_the_evaluation_of_the_trainer_alone_is_one() -> None:
    bodies = (yaml.safe_load(text) for text in blocks(ROOT / "docs/evaluation.md", "yaml"))
    (body,) = (body for body in bodies if "version" in body)
    EvaluationConfig.model_validate(body)


def rows(text: str) -> set[str]:
    """Return the words that tables explain: those in backquotes in the first cell of a row."""
    cells = re.findall(r"^\| ([^|]+) \|", text, re.MULTILINE)
    return {word for cell in cells for word in re.findall(r"`(\w+)`", cell)}


def test_every_reason_has_its_row() -> None:
    before, _, after = (ROOT / "docs/failure-modes.md").read_text().partition("\n## AdapterRollouts\n")
    assert {*FINETUNEJOB_REASONS, *EVALUATION_REASONS, *EXPORT_REASONS, *PassedReason} <= rows(before)
    of_conditions, _, of_pods = after.partition("\n## ")[0].partition("`status.podReasons`), or")
    assert set(READY_EXPLANATIONS) <= rows(of_conditions)
    assert rows(of_pods) == set(POD_EXPLANATIONS)


def test_every_exit_code_is_told() -> None:
    told = re.findall(r"^\| (\d+) \|", (ROOT / "docs/trainer.md").read_text(), re.MULTILINE)
    assert {int(code) for code in told} == set(ExitCode)


def test_every_python_dependency_has_its_reason() -> None:
    """Extras and versions are left out; a package of ours needs no reason twice."""
    wanted: set[str] = set()
    for file in ("pyproject.toml", "operator/pyproject.toml", "trainer/pyproject.toml", "cli/pyproject.toml"):
        project = tomllib.loads((ROOT / file).read_text())
        groups = [*project.get("dependency-groups", {}).values()]
        groups += [project.get("project", {}).get("dependencies", [])]
        groups += project.get("project", {}).get("optional-dependencies", {}).values()
        wanted |= {re.split(r"[\[<>=~! ]", line)[0] for group in groups for line in group}
    cells = re.findall(r"^\| ([^|]+) \|", (ROOT / "docs/dependencies.md").read_text(), re.MULTILINE)
    assert wanted - {word.strip() for cell in cells for word in cell.split(",")} == set()


def test_every_go_dependency_has_its_reason() -> None:
    direct = re.search(r"^require \((.*?)^\)", (ROOT / "deploy/local/go/go.mod").read_text(), re.MULTILINE | re.DOTALL)
    assert direct
    text = (ROOT / "docs/dependencies.md").read_text()
    for line in direct[1].strip().splitlines():
        assert line.split()[0] in text


def test_the_user_guide_says_with_which_kueue_it_was_tried() -> None:
    version = re.search(r"sigs\.k8s\.io/kueue v(\S+)", (ROOT / "tests/kueue/go/go.mod").read_text())
    assert version
    assert f"Kueue {version[1]}" in (ROOT / "docs/user-guide/fine-tuning.md").read_text()


COMING_FROM = sorted((ROOT / "docs/coming-from").glob("*.md"))
FIELD = re.compile(r"`(spec(?:\.\w+)+)")


@pytest.mark.parametrize("document", COMING_FROM, ids=named)
def test_every_field_that_somebody_comes_to_is_one(document: Path) -> None:
    """The third side of a row is ours too: `spec.suspend` of another kind may stand in the first."""
    known = set(re.findall(r"^\| `(spec\.[\w.]+)", (ROOT / "docs/api.md").read_text(), re.MULTILINE))
    rows = re.findall(r"^\| [^|]* \| ([^|]*) \|(.*)$", document.read_text(), re.MULTILINE)
    found = {field for ours, notes in rows for field in FIELD.findall(ours + notes)}
    assert found <= known
    assert found or document.name == "README.md"


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) < README_LINES


def test_every_metric_of_the_operator_is_in_its_table() -> None:
    suffixes = {"counter": "_total", "info": "_info"}
    wrappers = [each for each in vars(metrics).values() if isinstance(each, MetricWrapperBase)]
    families = [family for each in wrappers for family in each.describe()]
    exposed = {family.name + suffixes.get(family.type, "") for family in families} | {
        kind.gauge for kind in KINDS.values()
    }
    section = (ROOT / "docs" / "architecture.md").read_text().partition("\n## Metrics\n")[2].partition("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    told = {f"trimtab_{name.strip('`')}" for row in rows for name in CODE.findall(row)}
    assert exposed <= told, f"docs/architecture.md lacks {sorted(exposed - told)}"
