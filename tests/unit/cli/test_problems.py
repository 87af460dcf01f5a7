"""What goes wrong is one sentence with the next step, and an exit code; never a traceback."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.cli.cluster import GROUP, NAMESPACE, PLURALS, FakeCluster, finetunejob, kubeconfig
from tests.unit.cli.conftest import Run

INSIDE = f"{GROUP}/namespaces/{NAMESPACE}"


def test_no_kubeconfig(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    ran = run("list")
    assert ran.code == 3
    assert ran.err == (
        f"error: no cluster is configured: there is no {tmp_path}/none: set KUBECONFIG, or give --kubeconfig\n"
    )


def test_a_kubeconfig_that_is_none(run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for text in ("{", "[]", "a: 1", "", "contexts: [{}]\n"):
        (tmp_path / "bad").write_text(text)
        ran = run("list", "--kubeconfig", str(tmp_path / "bad"))
        assert ran.code == 3, text
        assert ran.err.startswith("error: ")
        assert ran.err.count("\n") == 1


def test_no_cluster_answers(run: Run, tmp_path: Path) -> None:
    ran = run("list", "--kubeconfig", str(kubeconfig(tmp_path / "k", "http://127.0.0.1:9")))
    assert ran.code == 3
    assert ran.err == (
        "error: the API server http://127.0.0.1:9 does not answer ([Errno 111] Connection refused): "
        "is the cluster up? See kubectl cluster-info\n"
    )


@pytest.mark.parametrize("code", [429, 500, 502, 503, 504])
def test_a_cluster_that_has_no_time(run: Run, cluster: FakeCluster, code: int) -> None:
    cluster.refuse(f"{INSIDE}/finetunejobs", code, "etcdserver: request timed out")
    ran = run("list", "ftj")
    assert (ran.code, ran.err) == (
        3,
        f"error: the API server answered {code} to GET {INSIDE}/finetunejobs (etcdserver: request timed out): "
        "try it again\n",
    )


def test_several_contexts_and_none_is_current(run: Run, cluster: FakeCluster, tmp_path: Path) -> None:
    contexts = [{"name": name, "context": {"cluster": "c", "user": "u", "namespace": NAMESPACE}} for name in ("a", "b")]
    path = str(kubeconfig(tmp_path / "k", cluster.address, contexts=contexts, **{"current-context": ""}))
    ran = run("list", "--kubeconfig", path)
    assert (ran.code, ran.err) == (
        3,
        "error: no context of the kubeconfig is current, and there are 2 (a, b): "
        "give --context, or choose one with kubectl config use-context\n",
    )
    assert run("list", "--kubeconfig", path, "--context", "b").code == 0


def test_a_context_that_is_not_there(run: Run, cluster: FakeCluster) -> None:
    assert run("list", "--context", "tset").err == "error: the kubeconfig has no context tset: did you mean test?\n"
    assert run("list", "--context", "z").err == "error: the kubeconfig has no context z: the contexts are test\n"


def test_trimtab_is_not_installed(run: Run, empty: FakeCluster) -> None:
    for plural in PLURALS:
        empty.answers[f"{INSIDE}/{plural}"] = (404, b"404 page not found\n")
    for arguments in (("list",), ("list", "ftj"), ("watch",)):
        ran = run(*arguments)
        assert ran.code == 1
        assert ran.err == (
            f"error: the cluster does not serve {INSIDE}/finetunejobs: "
            "is it the right context? If it is, install Trimtab with its chart: see README\n"
        )


def test_a_cluster_of_an_earlier_version_lists_what_it_has(run: Run, cluster: FakeCluster) -> None:
    cluster.answers[f"{INSIDE}/finetunesweeps"] = (404, b"404 page not found\n")
    ran = run("list")
    assert (ran.code, ran.err) == (0, "")
    assert "finetunejob/demo" in ran.out
    assert run("describe", "demo").code == 0


def test_forbidden(run: Run, cluster: FakeCluster) -> None:
    message = 'finetunejobs.trimtab.dev is forbidden: User "eve" cannot list resource "finetunejobs"'
    for plural in PLURALS:
        cluster.refuse(f"{INSIDE}/{plural}", 403, message, reason="Forbidden")
    ran = run("list")
    assert (ran.code, ran.err) == (
        4,
        f"error: {message}: ask for the right, and see kubectl auth can-i --list\n",
    )


def test_what_may_be_listed_is_listed(run: Run, cluster: FakeCluster) -> None:
    cluster.refuse(f"{INSIDE}/adapterrollouts", 403, "no", reason="Forbidden")
    ran = run("list")
    assert ran.code == 0
    assert "adapterrollout" not in ran.out
    assert ran.err == "not shown: AdapterRollouts (no)\n"


def test_unknown_to_the_cluster(run: Run, cluster: FakeCluster) -> None:
    cluster.refuse(f"{INSIDE}/finetunejobs", 401, "Unauthorized", reason="Unauthorized")
    ran = run("list", "ftj")
    assert (ran.code, ran.err) == (
        4,
        "error: the API server does not know you: log in again, or look at the kubeconfig's user\n",
    )


def test_a_name_that_is_not_there_has_near_ones(run: Run, cluster: FakeCluster) -> None:
    assert run("describe", "dem").err == (
        "error: there is no object dem in the namespace team-a: did you mean demo or demo-gate?\n"
    )
    assert run("describe", "ftj/zzz").err == (
        "error: there is no FineTuneJob zzz in the namespace team-a: see kubectl trimtab list\n"
    )
    assert run("curve", "demo-gate").err == (
        "error: there is no FineTuneJob demo-gate in the namespace team-a: did you mean demo?\n"
    )
    assert run("curve", "evaluation/demo-gate").err == (
        "error: evaluation/demo-gate is of another kind: give the name of a FineTuneJob\n"
    )


def test_a_kind_that_is_not_there_has_near_ones(run: Run, cluster: FakeCluster) -> None:
    assert run("list", "finetunejbo").err == (
        "error: there is no kind finetunejbo: did you mean finetunejob or finetunesweep?\n"
    )
    assert run("describe", "pod/x").code == 1


def test_two_kinds_of_one_name_have_to_be_told_apart(run: Run, cluster: FakeCluster) -> None:
    cluster.put({"kind": "Evaluation", "metadata": {"name": "demo"}, "spec": {}, "status": {}})
    ran = run("describe", "demo")
    assert (ran.code, ran.err) == (
        1,
        "error: 2 kinds have the name demo: write finetunejob/demo or evaluation/demo\n",
    )
    assert run("describe", "ftj/demo").code == 0
    assert run("logs", "evaluation/demo").err == "No attempt has begun; kubectl trimtab describe says why.\n"


@pytest.mark.parametrize("name", ["", "/", "ftj/", "..", "ftj/.."])
def test_what_is_no_name(name: str, run: Run, cluster: FakeCluster) -> None:
    assert run("describe", name).code == 1


def test_a_name_cannot_leave_its_place_in_the_address(run: Run, cluster: FakeCluster) -> None:
    run("describe", "ftj/../../secrets")
    assert all(request.path.startswith(INSIDE + "/finetunejobs") for request in cluster.asked)


def test_no_redirect_is_followed_with_the_token(run: Run, cluster: FakeCluster) -> None:
    cluster.answers[f"{INSIDE}/finetunejobs"] = (302, b"")
    assert run("list", "ftj").code == 1
    assert len(cluster.asked) == 1


@pytest.mark.parametrize("answer", [b"<html>", b"[]", b"", b"\xff\xfe"])
def test_something_else_answers(answer: bytes, run: Run, cluster: FakeCluster) -> None:
    cluster.answers[f"{INSIDE}/finetunejobs"] = (200, answer)
    ran = run("list", "ftj")
    assert ran.code == 3
    assert ran.err.startswith("error: ")


@pytest.mark.parametrize(
    "arguments", [("lisst",), ("list", "-o", "xml"), ("describe",), ("logs", "demo", "--tail", "-1")]
)
def test_a_wrong_command_line_is_another_exit_code(arguments: tuple[str, ...], run: Run) -> None:
    assert run(*arguments).code == 2


def test_whoever_reads_may_have_read_enough(cluster: FakeCluster) -> None:
    for number in range(2000):
        cluster.put(finetunejob(f"job-{number}"))
    command = f"{sys.executable} -m trimtab list -o json | head -c 100"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, env=dict(os.environ), check=False)
    assert len(done.stdout) == 100
    assert done.stderr == ""
