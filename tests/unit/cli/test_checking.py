"""A file of manifests: what reading finds, and what the API server says, each with its line."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest
from trimtab.checking import read
from trimtab.errors import Invalid, NotFound
from trimtab.manifests import Answers, manifests

from tests.unit.cli.cluster import GROUP, NAMESPACE, Body, FakeCluster, Request
from tests.unit.cli.conftest import Run

GOOD = manifests(
    Answers(
        "demo", "s3://models/base", "s3://datasets/rows/", "s3://adapters/demo", "object-storage", serving="app=vllm"
    )
)


HEAD = "apiVersion: trimtab.dev/v1alpha1\nkind: FineTuneJob\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "job.yaml"


def accepts(cluster: FakeCluster) -> None:
    cluster.on_patch = lambda _, request: (200, request.body)


def test_what_is_right_can_be_applied(file: Path, cluster: FakeCluster, run: Run) -> None:
    accepts(cluster)
    file.write_text(GOOD)
    ran = run("check", str(file))
    assert (ran.code, ran.out) == (0, "")
    assert ran.err == f"{file} can be applied: kubectl apply -f {file}\n"
    asked = [request for request in cluster.asked if request.method == "PATCH"]
    assert [request.path for request in asked] == [
        f"{GROUP}/namespaces/{NAMESPACE}/{plural}/demo" for plural in ("finetunejobs", "evaluations", "adapterrollouts")
    ]
    for request in asked:
        assert request.headers["Content-Type"] == "application/apply-patch+yaml"
        assert request.query["dryRun"] == "All"
        assert request.query["fieldValidation"] == "Strict"


def test_faults_of_the_server_are_told_with_their_lines(file: Path, cluster: FakeCluster, run: Run) -> None:
    def refuse(_: Body, request: Request) -> tuple[int, Body]:
        causes = [
            {"field": "spec.training.batchSize", "message": "Invalid value: 0: should be greater than or equal to 1"},
            {"field": "spec.tasks[1].name", "message": "Required value"},
            {"field": "<nil>", "message": "some validation rules were not checked"},
        ]
        return 422, {"message": "FineTuneJob is invalid", "details": {"name": "demo", "causes": causes}}

    cluster.on_patch = refuse
    file.write_text(
        "# a comment\n"
        "apiVersion: trimtab.dev/v1alpha1\n"
        "kind: FineTuneJob\n"
        "metadata: {name: demo}\n"
        "spec:\n"
        "  training:\n"
        "    epochs: 1\n"
        "    batchSize: 0\n"
        "  tasks:\n"
        "    - name: a\n"
        "    - metrics: []\n"
    )
    ran = run("check", str(file))
    assert ran.out.splitlines() == [
        f"{file}:2: some validation rules were not checked",
        f"{file}:8: spec.training.batchSize: Invalid value: 0: should be greater than or equal to 1",
        f"{file}:11: spec.tasks[1].name: Required value",
    ]
    assert (ran.code, ran.err) == (1, f"error: 3 faults in {file}: correct the lines above\n")


def test_a_field_that_is_none_is_told_with_its_line(file: Path, cluster: FakeCluster, run: Run) -> None:
    message = '.spec.traning: field not declared in schema, unknown field "spec.traning"'
    cluster.on_patch = lambda _, __: (400, {"message": message, "reason": "BadRequest"})
    file.write_text(GOOD.replace("  output:\n", "  traning: {}\n  output:\n"))
    line = 1 + file.read_text().splitlines().index("  traning: {}")
    assert f"{file}:{line}: spec.traning is not a field; kubectl explain has those" in run("check", str(file)).out


def test_fields_that_an_apply_does_not_know(file: Path, cluster: FakeCluster, run: Run) -> None:
    """The API server says 500, and names items of lists by their key."""
    message = (
        "failed to create typed patch object (team-a/demo; trimtab.dev/v1alpha1, Kind=Evaluation): errors:\n"
        "  .spec.tsks: field not declared in schema\n"
        '  .spec.tasks[name="b"].metric: field not declared in schema\n'
        "  .spec.target: expected map, got &{demo}"
    )
    cluster.refuse(f"{GROUP}/namespaces/{NAMESPACE}/evaluations/demo", 500, message, reason="InternalError")
    file.write_text(
        "apiVersion: trimtab.dev/v1alpha1\nkind: Evaluation\nmetadata: {name: demo}\nspec:\n"
        "  target: demo\n  tasks:\n    - name: a\n    - name: b\n      metric: x\n  tsks: []\n"
    )
    assert run("check", str(file)).out.splitlines() == [
        f"{file}:5: spec.target: expected map, got &{{demo}}",
        f'{file}:9: spec.tasks[name="b"].metric is not a field; kubectl explain has those',
        f"{file}:10: spec.tsks is not a field; kubectl explain has those",
    ]


CASES = {
    "this is no YAML: mapping values are not allowed here; look at its indent": ("a: b: c\n", 1),
    "spec is written twice; remove one": (
        "apiVersion: trimtab.dev/v1alpha1\nkind: FineTuneJob\nmetadata: {name: a}\nspec: {}\nspec: {}\n",
        5,
    ),
    "kind FineTunejob: did you mean FineTuneJob or FineTuneSweep?": ("apiVersion: x\nkind: FineTunejob\n", 2),
    "kind is missing: check knows FineTuneJob, FineTuneSweep, Evaluation, AdapterRollout, Review, AdapterExport": (
        "a: 1\n",
        1,
    ),
    "apiVersion has to be trimtab.dev/v1alpha1": ("kind: Evaluation\nmetadata: {name: a}\napiVersion: v1\n", 3),
    "metadata.name is missing; give it a name": (
        "apiVersion: trimtab.dev/v1alpha1\nkind: Evaluation\nmetadata:\n  labels: {}\n",
        3,
    ),
    "this is no object; write apiVersion, kind, metadata": ("---\n- a\n", 2),
    "the file has no object; kubectl trimtab new writes some": ("# nothing\n", 1),
}


@pytest.mark.parametrize("sentence", CASES)
def test_what_reading_finds(sentence: str, file: Path, cluster: FakeCluster, run: Run) -> None:
    accepts(cluster)
    text, line = CASES[sentence]
    file.write_text(text)
    ran = run("check", str(file))
    assert f"{file}:{line}: {sentence}" in ran.out.splitlines()
    assert ran.code == 1


def test_the_same_object_twice(file: Path, cluster: FakeCluster, run: Run) -> None:
    accepts(cluster)
    file.write_text(GOOD + "---\n" + GOOD.partition("---\n")[0])
    second = len(GOOD.splitlines()) + 5
    assert f"{file}:{second}: FineTuneJob demo is in line 4 too; remove one" in run("check", str(file)).out


def test_a_reference_to_nothing_is_no_fault_and_is_told(file: Path, cluster: FakeCluster, run: Run) -> None:
    accepts(cluster)
    file.write_text(GOOD.split("---\n")[1].replace("fineTuneJobName: demo", "fineTuneJobName: dmo"))
    ran = run("check", str(file))
    assert ran.out == (
        f"{file}:9: FineTuneJob dmo is neither in this file nor in team-a; it will be waited for (no fault)\n"
    )
    assert ran.code == 0
    file.write_text(GOOD.split("---\n")[1])
    assert run("check", str(file)).out == "", "demo is in the cluster"


def test_a_file_that_is_not_there_or_is_no_manifest(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="cannot be read"):
        read(tmp_path / "none.yaml")
    (tmp_path / "weights").write_bytes(b"\0" * 4_000_000)
    with pytest.raises(Invalid, match="more than any manifest"):
        read(tmp_path / "weights")
    (tmp_path / "bytes").write_bytes(b"kind: \xff\xfe")
    assert "this is no YAML" in read(tmp_path / "bytes")[1][0].sentence
    (tmp_path / "deep").write_text("[" * 2_000)
    assert "this is no YAML" in read(tmp_path / "deep")[1][0].sentence
    (tmp_path / "round").write_text("&a {kind: *a}")
    read(tmp_path / "round")


def test_numbers_dates_and_times_are_read_as_kubectl_reads_them(file: Path) -> None:
    file.write_text(
        "kind: FineTuneJob\n"
        "metadata: {name: a, annotations: {made: 2026-11-29, at: 12:30, when: 2026-11-29T12:00:00Z, of: 1:30.5}}\n"
        "spec: {2026-1-1: a, training:\n"
        "  {learningRate: 1e-4, weightDecay: 1E-2, epochs: 3, seed: 0x1F, warmupRatio: .5}}\n"
    )
    (document,), findings = read(file)
    assert findings == []
    assert document.body["metadata"]["annotations"] == {
        "made": "2026-11-29", "at": "12:30", "when": "2026-11-29T12:00:00Z", "of": "1:30.5"
    }  # fmt: skip
    training = {"learningRate": 1e-4, "weightDecay": 1e-2, "epochs": 3, "seed": 31, "warmupRatio": 0.5}
    assert document.body["spec"] == {"training": training, "2026-1-1": "a"}


@pytest.mark.parametrize("value", ["!!binary aGk=", "!!set {a}", "!!timestamp 2026-11-29", "!!omap [a: 1]"])
def test_what_json_does_not_have_is_a_fault_of_its_line(file: Path, value: str) -> None:
    file.write_text(f"kind: FineTuneJob\nmetadata: {{name: a}}\nspec:\n  output: {value}\n")
    assert [(each.line, "this is no YAML" in each.sentence) for each in read(file)[1]] == [(4, True)]


@pytest.mark.parametrize(
    "written",
    [
        "a: &a [*a]\n",
        "a: &a [x, x, x, x, x, x, x, x, x, x]\n"
        + "".join(f"{after}: &{after} [{', '.join([f'*{name}'] * 10)}]\n" for name, after in pairwise("abcdefghi")),
    ],
    ids=["within itself", "large"],
)
def test_aliases_that_make_large_what_is_small_are_a_fault(
    file: Path, cluster: FakeCluster, run: Run, written: str
) -> None:
    file.write_text(f"apiVersion: trimtab.dev/v1alpha1\nkind: FineTuneJob\nmetadata: {{name: a}}\n{written}")
    for verb in ("check", "apply", "estimate"):
        ran = run(verb, str(file))
        assert ran.code == 1
        assert "its aliases (*) make it too large" in ran.out + ran.err


def test_the_evaluation_of_a_search_comes_of_its_final(file: Path, cluster: FakeCluster, run: Run) -> None:
    accepts(cluster)
    search = "apiVersion: trimtab.dev/v1alpha1\nkind: FineTuneSweep\nmetadata: {name: demo}\nspec: %s\n---\n"
    export = "apiVersion: trimtab.dev/v1alpha1\nkind: AdapterExport\nmetadata: {name: demo}\n"
    export += "spec: {source: {evaluationName: demo}}\n"
    file.write_text(search % "{final: {topTrials: 2}}" + export)
    assert run("check", str(file)).out == ""
    file.write_text(search % "{maxTrials: 2}" + export)
    assert "Evaluation demo is neither in this file nor in team-a" in run("check", str(file)).out


def test_what_aliases_stand_for_is_written_out(file: Path) -> None:
    file.write_text("kind: FineTuneJob\nmetadata: {name: a}\nx: &x {b: 1}\ny: {<<: *x, c: 2}\nz: [*x, *x]\n")
    (document,), findings = read(file)
    assert findings == []
    assert document.body["y"] == {"b": 1, "c": 2}
    assert document.body["z"] == [{"b": 1}, {"b": 1}]


def test_what_is_no_number_is_told_and_not_that_no_cluster_answers(file: Path, cluster: FakeCluster, run: Run) -> None:
    file.write_text(f"{HEAD}metadata: {{name: a}}\nspec: {{training: {{learningRate: .nan}}}}\n")
    ran = run("check", str(file))
    assert ran.code == 1
    assert "this cannot be written as JSON" in ran.out
    assert [request for request in cluster.asked if request.method == "PATCH"] == []


def test_one_name_in_two_namespaces_is_two_objects(file: Path, cluster: FakeCluster, run: Run) -> None:
    accepts(cluster)
    one = f"{HEAD}metadata: {{name: a, namespace: %s}}\n---\n"
    file.write_text(one % "team-a" + one % "team-b")
    assert run("check", str(file)).code == 0
    file.write_text(one % "team-a" + f"{HEAD}metadata: {{name: a}}\n")
    assert "FineTuneJob a is in line 3 too" in run("check", str(file)).out


def test_what_is_of_another_namespace_is_no_reference(file: Path, cluster: FakeCluster, run: Run) -> None:
    accepts(cluster)
    target = HEAD.replace("FineTuneJob", "Evaluation") + "metadata: {name: e}\nspec: {target: {fineTuneJobName: a}}\n"
    file.write_text(f"{HEAD}metadata: {{name: a, namespace: team-b}}\n---\n{target}")
    assert "FineTuneJob a is neither in this file nor in team-a" in run("check", str(file)).out


@pytest.mark.parametrize("metadata", ["x", "{name: 1}", "[]"])
def test_an_estimate_of_a_file_needs_no_name(
    file: Path, cluster: FakeCluster, run: Run, metadata: str, tmp_path: Path
) -> None:
    file.write_text(f"{HEAD}metadata: {metadata}\nspec: none\n")
    ran = run("estimate", str(file))
    assert ran.code == 1
    assert ran.err.startswith("error: the trainer cannot estimate it")


def test_what_is_nested_too_deep_is_told(file: Path, cluster: FakeCluster, run: Run) -> None:
    file.write_text("a: " + "[" * 1500 + "]" * 1500)
    for verb in ("check", "estimate"):
        assert run(verb, str(file)).code == 1
