"""The steps of a release: the chart is pinned to what was built, and the workflow only calls the Makefile's targets."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy.release import publish
from deploy.release.publish import Release, pinned, provenance_of, signatures
from deploy.release.sbom import PRODUCT, ROOT

VALUES = (ROOT / "charts/trimtab/values.yaml").read_text()
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yaml"))
REGISTRY = "registry.example/team"

Body = dict[str, Any]


def digest(letter: str) -> str:
    return "sha256:" + letter * 64


DIGESTS = dict(zip(PRODUCT, map(digest, "abcd"), strict=True))


def test_the_packaged_chart_is_pinned_and_otherwise_what_it_was() -> None:
    text = pinned(VALUES, REGISTRY, DIGESTS)
    values, before = yaml.safe_load(text), yaml.safe_load(VALUES)
    assert values["imageRegistry"] == REGISTRY
    assert {name: values[name]["image"]["digest"] for name in PRODUCT} == DIGESTS
    values["imageRegistry"] = ""
    for name in PRODUCT:
        values[name]["image"]["digest"] = ""
    assert values == before
    assert text.count("#") == VALUES.count("#"), "the comments"


def test_values_that_are_not_where_they_were_stop_the_release() -> None:
    with pytest.raises(ValueError, match="imageRegistry"):
        pinned("operator: {}\n", REGISTRY, DIGESTS)
    with pytest.raises(ValueError, match="other"):
        pinned(VALUES, REGISTRY, {"other": digest("d")})


def test_everything_is_signed_by_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publish, "DIST", tmp_path)
    per_architecture = {"amd64": {"operator": digest("d")}, "arm64": {"operator": digest("e")}}
    (tmp_path / "digests.json").write_text(json.dumps({"operator": digest("a")}))
    for architecture, digests in per_architecture.items():
        (tmp_path / f"digests-{architecture}.json").write_text(json.dumps(digests))
    lines = signatures(Release("1.2.0", REGISTRY, ("operator",), ("amd64", "arm64")))
    subject = f"{REGISTRY}/trimtab/operator@"
    assert [(line[1], line[-1]) for line in lines] == [
        ("sign", subject + digest("a")),
        ("attest", subject + digest("a")),
        ("attest", subject + digest("d")),
        ("attest", subject + digest("e")),
        ("sign-blob", str(tmp_path / "trimtab-1.2.0.tgz")),
    ]
    predicates = [line[line.index("--predicate") + 1] for line in lines if "--predicate" in line]
    assert predicates == [
        str(tmp_path / "provenance/operator.json"),
        str(tmp_path / "sbom/amd64/operator.cdx.json"),
        str(tmp_path / "sbom/arm64/operator.cdx.json"),
    ]


def test_provenance_names_the_commit_and_the_recipe() -> None:
    predicate = provenance_of("operator", "1.2.0", "f" * 40)
    definition = predicate["buildDefinition"]
    assert definition["resolvedDependencies"] == [{"name": "source", "digest": {"gitCommit": "f" * 40}}]
    assert (ROOT / definition["internalParameters"]["containerfile"]).is_file()
    assert predicate["runDetails"]["builder"]["id"]


def steps(workflow: Path) -> list[Body]:
    return [step for job in yaml.safe_load(workflow.read_text())["jobs"].values() for step in job["steps"]]


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_every_step_is_a_target_of_the_makefile(workflow: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    commands = [step["run"] for step in steps(workflow) if "run" in step]
    assert commands
    for command in commands:
        found = re.fullmatch(r"(?:sudo --preserve-env (?:env \S+=\S+ )?)?make ([a-z-]+)(?: [A-Z_]+=\".*\")*", command)
        assert found, command
        assert found[1] in targets


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_names_no_registry_and_may_write_nothing_by_default(workflow: Path) -> None:
    text = workflow.read_text()
    assert not re.search(r"[a-z0-9-]\.(io|com|dev|net|org)\b", text), "it is a variable of the repository"
    assert yaml.safe_load(text)["permissions"] == {"contents": "read"}
