"""Every verb as a process of its own against a real API server, by what a person reads."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml
from trimtab_local import Cluster

from tests.component.api_server import ApiServer
from tests.component.conftest import INSTANCE

pytestmark = pytest.mark.cluster

GROUP = "/apis/trimtab.dev/v1alpha1"
TIME = "2026-11-28T12:00:00Z"
DIGEST = "sha256:" + "5" * 64
FLAGS = ("--base-model", "s3://models/base", "--data", "s3://datasets/rows/", "--output", "s3://adapters/demo")


@dataclass(frozen=True)
class Ran:
    """What a command said, ages as `AGE`."""

    code: int
    out: str
    err: str

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()


Run = Callable[..., Ran]


@pytest.fixture
def stranger(server: ApiServer, kubeconfig: Path, namespace: str, tmp_path: Path) -> Path:
    """Kubeconfig of a service account without any rights."""
    account = f"/api/v1/namespaces/{namespace}/serviceaccounts"
    server.create(account, {"metadata": {"name": "eve"}})
    token = server.create(f"{account}/eve/token", {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest"})
    assert token.accepted, token.message
    config = yaml.safe_load(kubeconfig.read_text())
    config["users"][0]["user"] = {"token": token.body["status"]["token"]}
    path = tmp_path / "eve"
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.fixture
def run(kubeconfig: Path, namespace: str) -> Run:
    """Run the command in the test's namespace, as the cluster's administrator by default."""

    def ran(verb: str, *arguments: str, config: Path = kubeconfig) -> Ran:
        where = () if verb == "new" else ("--kubeconfig", str(config), "-n", namespace)
        command = [sys.executable, "-m", "trimtab", verb, *arguments, *where]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
        return Ran(done.returncode, re.sub(r"\b\d+[smh](\d+s)?(?=\s|$)", "AGE", done.stdout), done.stderr)

    return ran


def condition(type_: str, status: str, reason: str, message: str) -> dict[str, Any]:
    return {"type": type_, "status": status, "reason": reason, "message": message, "lastTransitionTime": TIME}


class Objects:
    """Makes objects in the namespace, with a status as an operator writes it."""

    def __init__(self, server: ApiServer, namespace: str) -> None:
        self.server = server
        self.place = f"{GROUP}/namespaces/{namespace}"

    def make(self, plural: str, body: dict[str, Any], status: dict[str, Any] | None = None) -> None:
        answer = self.server.create(f"{self.place}/{plural}", {"apiVersion": "trimtab.dev/v1alpha1", **body})
        assert answer.accepted, answer.message
        if status is not None:
            self.status(plural, body["metadata"]["name"], status)

    def status(self, plural: str, name: str, status: dict[str, Any]) -> None:
        path = f"{self.place}/{plural}/{name}/status"
        answer = self.server.request("PATCH", path, {"status": status}, "merge")
        assert answer.accepted, answer.message

    def spec(self, plural: str, name: str) -> dict[str, Any]:
        spec: dict[str, Any] = self.server.get(f"{self.place}/{plural}/{name}").body["spec"]
        return spec


def finetunejob(name: str, rank: int = 16) -> dict[str, Any]:
    spec = {
        "baseModel": {"uri": "s3://models/base"},
        "dataset": {"training": {"uri": "s3://datasets/rows/"}},
        "output": {"uri": "s3://adapters/out"},
        "lora": {"rank": rank},
    }
    return {"kind": "FineTuneJob", "metadata": {"name": name}, "spec": spec}


TRAINING = {
    "conditions": [condition("Succeeded", "Unknown", "Training", "attempt 1 trains")],
    "summary": {"progress": "50%", "loss": "1.150", "step": "100/200"},
    "progress": {"step": 100, "totalSteps": 200, "percent": 50, "loss": 1.15},
    "curve": {"steps": [50, 100], "loss": [2.0, 1.15], "validationSteps": [100], "validationLoss": [1.4]},
    "attempts": [
        {"number": 0, "stage": "prepare", "jobName": "demo-prepare-0", "jobUID": "a", "reason": "Completed"},
        {"number": 1, "stage": "train", "jobName": "demo-train-1", "jobUID": "b"},
    ],
}
COMPLETED = {
    "conditions": [condition("Succeeded", "True", "Completed", "the adapter is published")],
    "curve": {"steps": [50, 100], "loss": [1.9, 1.0], "validationSteps": [100], "validationLoss": [1.2]},
    "artifact": {
        "uri": "s3://adapters/out/adapters/5",
        "digest": DIGEST,
        "rank": 32,
        "targetModules": ["q_proj"],
        "baseModelDigest": DIGEST,
    },
}


@pytest.fixture
def objects(server: ApiServer, namespace: str) -> Objects:
    """A run that trains, and one that is done."""
    made = Objects(server, namespace)
    made.make("finetunejobs", finetunejob("demo"), TRAINING)
    made.make("finetunejobs", finetunejob("done", rank=32), COMPLETED)
    return made


def test_list(objects: Objects, run: Run) -> None:
    assert run("list").lines == [
        "NAME   STATE       PROGRESS   LOSS    STEP      ADAPTER   AGE",
        "demo   Training    50%        1.150   100/200             AGE",
        "done   Completed                                          AGE",
    ]
    told = json.loads(run("list", "ftj", "-o", "json").out)
    assert yaml.safe_load(run("list", "-o", "yaml").out)["kind"] == told["kind"] == "List"
    assert [each["status"]["conditions"][0]["reason"] for each in told["items"]] == ["Training", "Completed"]
    assert "managedFields" not in told["items"][0]["metadata"]
    everywhere = run("list", "-A").lines
    assert everywhere[0].startswith("NAMESPACE")
    assert run("list", "evaluations").err.startswith("Nothing of Trimtab is in the namespace test-")


def test_describe(objects: Objects, run: Run) -> None:
    told = run("describe", "demo")
    assert told.code == 0, told.err
    assert told.lines[1:] == [
        "What      Training: step 100 of 200, 50 %, loss 1.150",
        "Why       attempt 1 trains",
        "          Training means: The adapter is trained; `status.progress` moves.",
        "Next      Nothing.",
        "Attempts  0 prepare: Completed",
        "          1 train: its pod has not started",
    ]
    assert json.loads(run("describe", "done", "-o", "json").out)["adapter"] == ["s3://adapters/out/adapters/5", DIGEST]


def test_a_name_that_is_not_there(objects: Objects, run: Run) -> None:
    told = run("describe", "dem")
    assert told.code == 1
    assert told.err.endswith("did you mean demo or done?\n"), told.err


def test_curve(objects: Objects, run: Run) -> None:
    lines = run("curve", "demo", "done").lines
    assert lines[-5:] == [
        "━━ demo: loss, 1.15 at step 100",
        "━━ demo: validation loss, 1.4 at step 100",
        "━━ done: loss, 1 at step 100",
        "━━ done: validation loss, 1.2 at step 100",
        "nats per supervised token over steps",
    ]


def test_compare(objects: Objects, run: Run) -> None:
    lines = run("compare", "demo", "done").lines
    assert lines[:8] == [
        "SETTING     demo   done",
        "lora.rank   16     32",
        "",
        "FIGURE                 demo   done   CHANGE",
        "steps                  100",
        "loss                   1.15   1      -0.15",
        "validation loss        1.4    1.2    -0.2",
        "best validation loss   1.4    1.2    -0.2",
    ]


def test_suspend_and_resume(objects: Objects, run: Run) -> None:
    assert run("suspend", "demo", "--dry-run").out.startswith("finetunejob/demo: spec.suspend is true (dry run")
    assert objects.spec("finetunejobs", "demo")["suspend"] is False
    assert run("suspend", "demo").out == "finetunejob/demo: spec.suspend is true\n"
    assert objects.spec("finetunejobs", "demo")["suspend"] is True
    assert run("resume", "ftj/demo").code == 0
    assert objects.spec("finetunejobs", "demo")["suspend"] is False
    assert run("suspend", "done").err == (
        "error: finetunejob/done has ended (Completed): there is nothing to suspend\n"
    )


def test_what_new_writes_is_accepted_and_nothing_is_stored(
    server: ApiServer, namespace: str, run: Run, tmp_path: Path
) -> None:
    file = tmp_path / "demo.yaml"
    assert run("new", "demo", *FLAGS, "--serve", "app=vllm", "-f", str(file)).code == 0
    checked = run("check", str(file))
    assert (checked.code, checked.out) == (0, ""), checked
    place = f"{GROUP}/namespaces/{namespace}"
    assert server.get(f"{place}/finetunejobs").body["items"] == []
    for body in yaml.safe_load_all(file.read_text()):
        answer = server.create(f"{place}/{body['kind'].lower()}s", body)
        assert answer.accepted, answer.message
    assert [line.split()[0] for line in run("list").lines if "/" in line] == [
        "finetunejob/demo",
        "evaluation/demo",
        "adapterrollout/demo",
    ]
    assert run("check", str(file)).code == 0, "it is there already, and would stay as it is"


@pytest.mark.parametrize("method", ["SFT", "DPO", "ORPO"])
@pytest.mark.parametrize("trials", ["0", "8"])
def test_runs_of_several_pods_searches_and_exports_that_new_writes_are_accepted(
    method: str, trials: str, run: Run, tmp_path: Path
) -> None:
    file = tmp_path / "demo.yaml"
    more = f"--gpus 2 --nodes 2 --method {method} --trials {trials} --export s3://models/demo --serve a=b".split()
    assert run("new", "demo", *FLAGS, *more, "-f", str(file)).code == 0
    checked = run("check", str(file))
    assert (checked.code, checked.out) == (0, ""), checked.out


def test_check_names_the_lines(objects: Objects, run: Run, tmp_path: Path) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(
        "apiVersion: trimtab.dev/v1alpha1\n"
        "kind: FineTuneJob\n"
        "metadata: {name: demo}\n"
        "spec:\n"
        "  baseModel: {uri: s3://models/other}\n"
        "  dataset: {training: {uri: s3://datasets/rows/}}\n"
        "  output: {uri: s3://adapters/out}\n"
        "  lora: {rank: 16}\n"
        "---\n"
        "apiVersion: trimtab.dev/v1alpha1\n"
        "kind: FineTuneJob\n"
        "metadata: {name: fresh}\n"
        "spec:\n"
        "  baseModel: {uri: models/base}\n"
        "  dataset: {training: {uri: s3://datasets/rows/}}\n"
        "  output: {uri: s3://adapters/out}\n"
        "  lora:\n"
        "    rank: 0\n"
        "---\n"
        "apiVersion: trimtab.dev/v1alpha1\n"
        "kind: Evaluation\n"
        "metadata: {name: fresh}\n"
        "spec:\n"
        "  target: {fineTuneJobName: nobody}\n"
        "  tsks: []\n"
    )
    told = run("check", str(file))
    assert told.err == f"error: 4 faults in {file}: correct the lines above\n"
    assert told.code == 1
    found = [line.removeprefix(f"{file}:") for line in told.lines]
    assert any(re.match(r"[45]: .*baseModel.* is immutable", line) for line in found), found
    assert any(line.startswith("14: spec.baseModel.uri: Invalid value") for line in found), found
    assert any(line.startswith("18: spec.lora.rank: Invalid value") for line in found), found
    assert any(line.startswith("25: spec.tsks is not a field") for line in found), found
    assert any(re.match(r"24: FineTuneJob nobody is neither .*\(no fault\)", line) for line in found), found


def test_logs_of_pods_that_have_no_node_and_of_those_that_are_gone(
    objects: Objects, server: ApiServer, namespace: str, run: Run
) -> None:
    labels = {"batch.kubernetes.io/job-name": "demo-train-1"}
    spec = {"containers": [{"name": "trainer", "image": "none"}], "automountServiceAccountToken": False}
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "demo-train-1-x", "labels": labels}, "spec": spec}
    server.create(f"/api/v1/namespaces/{namespace}/serviceaccounts", {"metadata": {"name": "default"}})
    answer = server.create(f"/api/v1/namespaces/{namespace}/pods", pod)
    assert answer.accepted, answer.message
    told = run("logs", "demo")
    assert told.code == 0, told.err
    assert told.err.splitlines() == [
        "==> attempt 0, prepare, Job demo-prepare-0 <==",
        "its pod is gone; the status says Completed",
        "==> attempt 1, train, Job demo-train-1 <==",
        "its pod demo-train-1-x has said nothing yet",
    ]


def test_watch_tells_changes_until_it_is_interrupted(objects: Objects, kubeconfig: Path, namespace: str) -> None:
    heeding = ["env", "--default-signal=INT"]  # what runs in the background of a script inherits that it is ignored
    watch = [sys.executable, "-u", "-m", "trimtab", "watch", "--kubeconfig", str(kubeconfig), "-n", namespace]
    with subprocess.Popen([*heeding, *watch], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as watching:
        assert watching.stdout is not None
        assert watching.stderr is not None
        try:
            told = sorted(watching.stdout.readline() for _ in range(2))
            assert told[0] == f"{namespace}  finetunejob/demo  Training  50%  attempt 1 trains\n"
            objects.status("finetunejobs", "demo", {"summary": {"progress": "75%"}})
            assert "75%" in watching.stdout.readline()
            objects.server.delete(f"{objects.place}/finetunejobs/done")
            assert watching.stdout.readline() == f"{namespace}  finetunejob/done  Deleted\n"
            watching.send_signal(signal.SIGINT)
            assert watching.wait(30) == 0
            assert watching.stderr.read() == ""
        finally:
            watching.kill()


def test_whoever_has_no_rights_is_told(objects: Objects, namespace: str, stranger: Path, run: Run) -> None:
    for arguments in (("list",), ("describe", "demo"), ("suspend", "demo"), ("watch",), ("logs", "demo")):
        told = run(*arguments, config=stranger)
        assert told.code == 4, told
        assert f'User "system:serviceaccount:{namespace}:eve" cannot' in told.err
        assert told.err.count("\n") == 1
        assert told.out == ""


def test_kubectl_finds_the_plugin_and_what_may_follow(server: ApiServer, kubeconfig: Path, namespace: str) -> None:
    Objects(server, namespace).make("finetunejobs", finetunejob("demo-gate"))
    kubectl = Cluster(name=INSTANCE, control_plane=True).program("kubectl")
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [kubectl, "__complete", "trimtab", "describe", "-n", namespace, "demo-"],
        env={**os.environ, "KUBECONFIG": str(kubeconfig), "PATH": path},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert done.stdout.splitlines() == ["demo-gate", ":4"]
