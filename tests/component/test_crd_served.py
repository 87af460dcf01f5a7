"""What people and programs see of the kinds on a real API server: defaults, columns, explanations."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from trimtab_operator.api import (
    AdapterExport,
    AdapterExportSpec,
    AdapterRollout,
    AdapterRolloutSpec,
    Evaluation,
    FineTuneJob,
    FineTuneSweep,
    FineTuneSweepSpec,
)
from trimtab_operator.api.definitions.reference import fields
from trimtab_operator.api.evaluation import EvaluationSpec
from trimtab_operator.api.finetunejob import FineTuneJobSpec
from trimtab_operator.api.review import Review, ReviewSpec

from tests.component.api_server import ApiServer
from tests.component.crd_kinds import (
    ADAPTEREXPORT,
    ADAPTERROLLOUT,
    EVALUATION,
    FINETUNEJOB,
    FINETUNESWEEP,
    KINDS,
    REVIEW,
    Kind,
)
from tests.component.crd_samples import Body, change

pytestmark = pytest.mark.cluster

of_each_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)


def kubectl(kubeconfig: Path, *arguments: str) -> str:
    program = kubeconfig.parent / "bin" / "kubectl"
    command = [program if program.exists() else shutil.which("kubectl") or "kubectl", "--kubeconfig", kubeconfig]
    return subprocess.run([*command, *arguments], check=True, capture_output=True, text=True).stdout


SAMPLES = [
    pytest.param(kind, sample, id=f"{kind.name}, {name}")
    for kind in KINDS
    for name, sample in {"minimal": kind.minimal, **kind.variants}.items()
]


@pytest.mark.parametrize(("kind", "sample"), SAMPLES)
def test_the_server_fills_in_what_the_models_do(server: ApiServer, namespace: str, kind: Kind, sample: Body) -> None:
    """The trainer's defaults, the models' and the schema's are one: a run on a laptop is the run in a cluster."""
    answer = server.create(kind.url(namespace), sample)
    assert answer.accepted, answer.message
    if kind is FINETUNEJOB:
        assert FineTuneJob.parse(answer.body).spec == FineTuneJobSpec.model_validate(sample["spec"])
    elif kind is FINETUNESWEEP:
        assert FineTuneSweep.parse(answer.body).spec == FineTuneSweepSpec.model_validate(sample["spec"])
    elif kind is ADAPTERROLLOUT:
        assert AdapterRollout.parse(answer.body).spec == AdapterRolloutSpec.model_validate(sample["spec"])
    elif kind is ADAPTEREXPORT:
        assert AdapterExport.parse(answer.body).spec == AdapterExportSpec.model_validate(sample["spec"])
    elif kind is REVIEW:
        assert Review.parse(answer.body).spec == ReviewSpec.model_validate(sample["spec"])
    else:
        spec = Evaluation.parse(answer.body).spec
        assert spec == EvaluationSpec.model_validate(sample["spec"])
        spec.check()


def test_the_server_fills_in_nothing_else_for_the_smallest_finetunejob(server: ApiServer, namespace: str) -> None:
    spec = server.create(FINETUNEJOB.url(namespace), FINETUNEJOB.minimal).body["spec"]
    assert spec["lora"] == {
        "type": "LoRA",
        "rank": 16,
        "alpha": 32,
        "dropout": 0.05,
        "targetModules": ["all-linear"],
        "useRslora": False,
        "useDora": False,
    }
    assert spec["template"] == {"terminationGracePeriodSeconds": 120}
    assert "earlyStopping" not in spec["training"]


def test_that_there_is_no_adapter_outlives_every_way_to_write_it(
    server: ApiServer, namespace: str, tmp_path: Path
) -> None:
    """It is a word and not null: kubectl apply leaves nulls out, and what is absent is an adapter."""
    wanted = change(FINETUNEJOB.minimal, {"spec.lora": {"type": "None"}, "spec.quantization": {"type": "None"}})
    url = f"{FINETUNEJOB.url(namespace)}/{wanted['metadata']['name']}"
    file = tmp_path / "job.json"
    for server_side in ([], ["--server-side", "--force-conflicts"]):
        for suspend in (True, False):
            file.write_text(json.dumps(change(wanted, {"spec.suspend": suspend})))
            kubectl(server.kubeconfig, "apply", *server_side, "-n", namespace, "-f", str(file))
            found = server.get(url).body
            assert FineTuneJob.parse(found).spec.full
            assert found["spec"]["suspend"] is suspend
    for lora in (None, {"type": None}, {"type": "LoRA"}):
        changed = server.request("PATCH", url, {"spec": {"lora": lora}}, "merge")
        assert not changed.accepted
        assert "lora is immutable" in changed.message


def test_the_server_fills_in_nothing_else_for_the_smallest_evaluation(server: ApiServer, namespace: str) -> None:
    spec = server.create(EVALUATION.url(namespace), EVALUATION.minimal).body["spec"]
    assert spec == {
        **EVALUATION.minimal["spec"],
        "precision": "AsTrained",
        "engine": "Transformers",
        "maximumTrainedOnRatio": 0.05,
        "resamples": 10_000,
        "seed": 17,
        "retries": {"onFailure": 1, "onDisruption": 20},
        "suspend": False,
        "template": {"terminationGracePeriodSeconds": 120},
    }


def test_the_server_fills_in_nothing_else_for_the_smallest_adapterrollout(server: ApiServer, namespace: str) -> None:
    spec = server.create(ADAPTERROLLOUT.url(namespace), ADAPTERROLLOUT.minimal).body["spec"]
    assert spec == {
        **ADAPTERROLLOUT.minimal["spec"],
        "serving": {**ADAPTERROLLOUT.minimal["spec"]["serving"], "port": 8081},
        "strategy": {
            "canaryPods": 1,
            "canaryWeight": 100,
            "canarySeconds": 60,
            "maxPodsAtOnce": 0,
            "drainSeconds": 30,
            "analysis": {"minimumRequests": 20, "maximumErrorRatioIncrease": 0.02, "maximumLatencyRatio": 1.5},
        },
        "probe": {"kind": "Completion", "prompt": "Once upon a time", "maxTokens": 8, "differsFromBase": True},
        "revisionHistoryLimit": 5,
        "paused": False,
    }


@of_each_kind
def test_a_status_is_kept_apart_from_the_spec(server: ApiServer, namespace: str, kind: Kind) -> None:
    url = kind.url(namespace)
    created = server.create(url, {**kind.minimal, "status": kind.status}).body
    assert "status" not in created
    body = {**created, "spec": kind.full["spec"], "status": kind.status}
    written = server.replace(f"{url}/sample/status", body).body
    assert written["status"] == kind.status
    assert written["spec"] == created["spec"]
    assert written["metadata"]["generation"] == 1


@of_each_kind
def test_an_object_survives_apply_and_re_apply(server: ApiServer, namespace: str, kind: Kind) -> None:
    first = server.apply(f"{kind.url(namespace)}/sample", kind.full)
    again = server.apply(f"{kind.url(namespace)}/sample", kind.full)
    assert first.accepted, first.message
    assert again.body["metadata"]["resourceVersion"] == first.body["metadata"]["resourceVersion"]


def lines(kubeconfig: Path, namespace: str, *arguments: str) -> list[list[str]]:
    """Return the words of each line that `kubectl get` prints."""
    return [line.split() for line in kubectl(kubeconfig, "-n", namespace, "get", *arguments).splitlines()]


@pytest.fixture
def with_status(server: ApiServer, namespace: str) -> None:
    """A sample of each kind, with its status."""
    for kind in KINDS:
        created = server.create(kind.url(namespace), kind.minimal).body
        server.replace(f"{kind.url(namespace)}/sample/status", change({**created, "status": kind.status}, {}))


@pytest.mark.usefixtures("with_status")
def test_get_tells_the_story_of_a_finetunejob_in_one_line(kubeconfig: Path, namespace: str) -> None:
    head, line = lines(kubeconfig, namespace, "ftj")
    assert head == ["NAME", "STATE", "PROGRESS", "LOSS", "STEP", "ADAPTER", "AGE"]
    assert line[:-1] == ["sample", "Training", "50%", "2.500", "1/2", "000000000000"]
    head, line = lines(kubeconfig, namespace, "ftj", "-o", "wide")
    assert head[-5:] == ["MESSAGE", "ATTEMPT", "RANK", "DATA", "REPORT"]
    assert line[-5:-2] == ["a", "0", "1"]
    assert all(uri.startswith("s3://") for uri in line[-2:])


@pytest.mark.usefixtures("with_status")
def test_get_tells_the_story_of_an_evaluation_in_one_line(kubeconfig: Path, namespace: str) -> None:
    head, line = lines(kubeconfig, namespace, "ftev")
    assert head == ["NAME", "STATE", "PASSED", "METRIC", "VALUE", "CHANGE", "AGE"]
    assert line[:-1] == ["sample", "Completed", "False", "heldout/perplexity", "20.18", "-35.5"]
    head, line = lines(kubeconfig, namespace, "ftev", "-o", "wide")
    assert head[-3:] == ["MESSAGE", "PROGRESS", "REPORT"]
    assert line[-3:] == ["worse", "50%", "s3://adapters/out/evaluations/0/report.html"]


@pytest.mark.usefixtures("with_status")
def test_get_tells_the_story_of_an_adapterrollout_in_one_line(kubeconfig: Path, namespace: str) -> None:
    head, line = lines(kubeconfig, namespace, "arl")
    assert head == ["NAME", "STATE", "READY", "ADAPTER", "PODS", "AGE"]
    assert line[:-1] == ["sample", "PodNotUpdated", "False", "000000000000", "1/2"]
    head, line = lines(kubeconfig, namespace, "arl", "-o", "wide")
    assert head[-5:] == ["MESSAGE", "VERIFIED", "MODEL", "EVALUATION", "SERVED"]
    assert line[-5:-1] == ["behind", "True", "field-guide", "sample"]


@pytest.mark.usefixtures("with_status")
def test_all_kinds_are_in_one_category(kubeconfig: Path, namespace: str) -> None:
    names = kubectl(kubeconfig, "-n", namespace, "get", "trimtab", "-o", "name").split()
    assert sorted(names) == sorted(f"{kind.name.lower()}.trimtab.dev/sample" for kind in KINDS)


@pytest.mark.parametrize("name", ["Org/My_Model-v1.2", "meta-llama/Llama-3.1-8B-Instruct", "ft:smol:org:id", "A" * 96])
def test_a_served_name_is_what_models_are_called(server: ApiServer, namespace: str, name: str) -> None:
    body = change(ADAPTERROLLOUT.minimal, {"spec.adapterName": name})
    answer = server.create(ADAPTERROLLOUT.url(namespace), body, dryRun="All")
    assert answer.accepted, answer.message


NO_NAMES = ("field-guide@0a1b2c3d", "../field-guide", "field..guide", ".", "/field-guide", "team//guide", "team/")


@pytest.mark.parametrize("name", NO_NAMES)
def test_a_served_name_is_neither_a_revision_nor_a_path(server: ApiServer, namespace: str, name: str) -> None:
    answer = server.create(ADAPTERROLLOUT.url(namespace), change(ADAPTERROLLOUT.minimal, {"spec.adapterName": name}))
    assert not answer.accepted
    assert "spec.adapterName" in answer.message


@of_each_kind
def test_explain_is_complete(kubeconfig: Path, kind: Kind) -> None:
    singular = kind.name.lower()
    listed = kubectl(kubeconfig, "explain", singular, "--recursive")
    sections = {path for path, node, _ in fields(kind.root) if "properties" in node and path.count(".") < 2}
    for section in sorted(sections - {"metadata"}):
        text = kubectl(kubeconfig, "explain", f"{singular}.{section}")
        assert "<no description>" not in text, section
        assert "<empty>" not in text, section
    for path, _, _ in fields(kind.root):
        assert path.rpartition(".")[2] in listed
