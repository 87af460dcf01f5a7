"""Every verb, by what a person reads."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
import yaml
from rich.console import Console
from trimtab.client import Client
from trimtab.rendering import listing
from trimtab.tables import Listing, plain, tables

from tests.unit.cli.cluster import GROUP, LOSS, NAMESPACE, STEPS, FakeCluster, ago, condition, finetunejob
from tests.unit.cli.conftest import Run

INSIDE = f"{GROUP}/namespaces/{NAMESPACE}"


def test_a_list_is_a_table_for_each_kind(cluster: FakeCluster, run: Run) -> None:
    ran = run("list")
    assert ran.out.splitlines() == [
        "NAME                 STATE              PROGRESS   LOSS    STEP      ADAPTER   AGE",
        "finetunejob/broken   DatasetMalformed                                          3h",
        "finetunejob/demo     Training           50%        1.150   100/200             3h",
        "",
        "NAME                   STATE       PASSED   METRIC               VALUE   CHANGE   AGE",
        "evaluation/demo-gate   Completed   False    heldout/perplexity   12.2    +0.2     3h",
        "",
        "NAME                    STATE     READY   ADAPTER        PODS   AGE",
        "adapterrollout/served   Serving   True    57304f9f7684   2/2    3h",
    ]
    assert (ran.code, ran.err) == (0, "")
    assert {request.headers["Authorization"] for request in cluster.asked} == {"Bearer secret-token"}


def test_one_kind_has_plain_names_and_wide_has_the_message(cluster: FakeCluster, run: Run) -> None:
    assert run("list", "ftj").out.splitlines()[1].startswith("broken   DatasetMalformed")
    assert "train.jsonl line 7 is no JSON   0" in run("list", "FineTuneJobs", "-o", "wide").out


def test_all_namespaces_are_told_apart(cluster: FakeCluster, run: Run) -> None:
    cluster.put({**finetunejob("other"), "metadata": {"name": "other", "namespace": "team-b"}})
    lines = run("list", "ftj", "-A").out.splitlines()
    assert [line.split()[:2] for line in lines] == [
        ["NAMESPACE", "NAME"],
        [NAMESPACE, "broken"],
        [NAMESPACE, "demo"],
        ["team-b", "other"],
    ]
    assert run("list", "ftj", "-n", "team-b").out.splitlines()[1].startswith("other")


def test_json_and_yaml_are_one_list_of_objects(cluster: FakeCluster, run: Run) -> None:
    cluster.objects[f"{INSIDE}/finetunejobs/demo"]["metadata"]["managedFields"] = [{"manager": "x"}]
    told = json.loads(run("list", "-o", "json").out)
    assert (told["apiVersion"], told["kind"]) == ("v1", "List")
    assert [each["metadata"]["name"] for each in told["items"]] == ["broken", "demo", "demo-gate", "served"]
    assert "managedFields" not in told["items"][1]["metadata"]
    assert yaml.safe_load(run("list", "-o", "yaml").out) == told


def test_a_long_list_is_read_page_by_page(empty: FakeCluster, run: Run) -> None:
    pages = {
        None: {"metadata": {"continue": "more"}, "items": [finetunejob("a")]},
        "more": {"metadata": {}, "items": [finetunejob("b")]},
    }
    answer = empty.answer

    def paged(request: object) -> object:
        code, body = answer(request)  # type: ignore[arg-type]
        query, path = request.query, request.path  # type: ignore[attr-defined]
        return (code, pages[query.get("continue")]) if path.endswith("/finetunejobs") else (code, body)

    empty.answer = paged  # type: ignore[method-assign,assignment]
    assert [line.split()[0] for line in run("list", "ftj").out.splitlines()] == ["NAME", "a", "b"]


def test_a_pipe_and_a_terminal_get_the_same_table(cluster: FakeCluster, run: Run) -> None:
    cluster.put(finetunejob("wide", conditions=[condition("Succeeded", "Unknown", "模型", "x")]))
    with Client() as client:
        objects = client.list()
    now = datetime.now(UTC)
    console = Console(width=200)
    with console.capture() as captured:
        console.print(listing(objects, now))
    assert [line.rstrip() for line in captured.get().splitlines()] == list(plain(tables(objects, now)))


def test_a_narrow_terminal_folds_names_and_says_what_it_cuts(cluster: FakeCluster) -> None:
    with Client() as client:
        objects = client.list("ftj")
    pictures = {}
    for width in (76, 50):
        console = Console(width=width)
        with console.capture() as captured:
            console.print(listing([*objects], datetime.now(UTC)))
        pictures[width] = [line.rstrip() for line in captured.get().splitlines()]
    assert any("1.150   100/200" in line for line in pictures[76]), pictures[76]
    assert any("…" in line and "100/200" not in line for line in pictures[50]), pictures[50]


def test_nothing_there_says_how_to_begin(empty: FakeCluster, run: Run) -> None:
    ran = run("list")
    assert (ran.code, ran.out) == (0, "")
    assert ran.err == (
        "Nothing of Trimtab is in the namespace team-a. kubectl trimtab new writes manifests for a beginning.\n"
    )


def test_a_story_says_what_why_and_what_next(cluster: FakeCluster, run: Run) -> None:
    assert run("describe", "broken").out.splitlines() == [
        "FineTuneJob broken in team-a, created 3h ago",
        "What      DatasetMalformed",
        "Why       train.jsonl line 7 is no JSON",
        "          DatasetMalformed means: A row cannot be read.",
        "Next      Correct the file and line that the message names.",
        "Attempts  0 prepare: DatasetMalformed: train.jsonl line 7 is no JSON",
    ]


def test_the_story_of_a_run_has_its_attempts_data_and_cost(cluster: FakeCluster, run: Run) -> None:
    cluster.objects[f"{INSIDE}/finetunejobs/demo"]["status"]["attempts"][2]["startTime"] = ago(minutes=5, seconds=30)
    lines = run("describe", "demo").out.splitlines()
    assert lines[1] == "What      Training: step 100 of 200, 50 %, loss 1.150, 5,200 tokens/s, about 1h20m to go"
    assert lines[5:8] == [
        "Attempts  0 prepare: Completed after 2m3s",
        "          1 train: NodeLost after 10m, steps 0 to 50, charged to disruptions: node gpu-3 does not answer",
        lines[7],
    ]
    assert lines[7].startswith("          2 train: runs since 5m3")
    assert lines[8:] == [
        "Data      1,200 rows, 345,678 tokens, 60 held out for validation, 61 for the test, 3 dropped",
        "Cost      15m of accelerators, 5m of it lost",
    ]


def test_the_story_of_a_run_that_trains_all_weights_calls_what_it_made_a_model(cluster: FakeCluster, run: Run) -> None:
    body = cluster.objects[f"{INSIDE}/finetunejobs/demo"]
    artifact = {"uri": "s3://adapters/demo/models/e", "digest": "sha256:e", "testLoss": 1.1, "baseTestLoss": 2.2}
    body["status"]["artifact"] = artifact
    assert "Adapter   s3://adapters/demo/models/e" in run("describe", "demo").out
    body["spec"]["lora"] = {"type": "None"}
    told = run("describe", "demo").out
    assert "Model     s3://adapters/demo/models/e" in told
    assert "test loss: model 1.100, base model 2.200" in told


def test_the_story_of_a_verdict_has_its_figures(cluster: FakeCluster, run: Run) -> None:
    told = json.loads(run("describe", "demo-gate", "-o", "json").out)
    assert told["what"] == ["Completed", "Verdict: Regressed"]
    assert told["why"][-1] == "Passed, Regressed: heldout/perplexity is worse by 0.2"
    assert told["next"][-1] == "Look at the losses against the baseline in the report."
    assert told["results"] == [
        "heldout/perplexity 12.2 (11.9 to 12.5), baseline 12, not kept",
        "report: s3://out/report.html",
    ]


def test_an_object_that_nobody_has_looked_at_says_so(empty: FakeCluster, run: Run) -> None:
    empty.put(finetunejob("new"))
    lines = run("describe", "new").out.splitlines()
    assert lines[1] == "What  The operator has not looked at it yet."
    assert lines[3] == "Next  kubectl get pods -A -l app.kubernetes.io/name=trimtab says whether one runs."


def test_a_reason_of_a_later_operator_is_shown_as_it_is(empty: FakeCluster, run: Run) -> None:
    empty.put(finetunejob("new", conditions=[condition("Succeeded", "Unknown", "Levitating", "it floats")]))
    assert run("describe", "new").out.splitlines()[1:] == ["What  Levitating", "Why   it floats"]


def test_a_curve_is_drawn(cluster: FakeCluster, run: Run) -> None:
    lines = run("curve", "demo").out.splitlines()
    assert lines[0] == "   3 ┤⠑⡄"
    assert lines[-5:] == [
        "     └──────────────────────────────────────────────────────────────────",
        "      10                                                             100",
        "━━ demo: loss, 1.15 at step 100",
        "━━ demo: validation loss, 1.4 at step 100",
        "nats per supervised token over steps",
    ]
    assert json.loads(run("curve", "demo", "-o", "json").out) == [
        {
            "name": "demo",
            "loss": [list(point) for point in zip(STEPS, LOSS, strict=True)],
            "validationLoss": [[50, 1.7], [100, 1.4]],
        }
    ]
    assert run("curve", "broken").out == "There is no curve yet: it comes with the first steps of training.\n"


def test_two_runs_are_compared(cluster: FakeCluster, run: Run) -> None:
    other = finetunejob("other", curve={"steps": [10], "loss": [2.0]}, artifact={"testLoss": 1.5})
    other["spec"]["lora"]["rank"] = 32
    other["spec"]["training"]["packing"] = False
    other["spec"]["suspend"] = True
    cluster.put(other)
    lines = run("compare", "demo", "other").out.splitlines()
    assert lines[:12] == [
        "SETTING            demo   other",
        "lora.rank          16     32",
        "training.packing   true   false",
        "",
        "FIGURE                 demo     other   CHANGE",
        "steps                  100",
        "loss                   1.15     2       +0.85",
        "validation loss        1.4",
        "best validation loss   1.4",
        "test loss                       1.5",
        "rows                   1200",
        "tokens                 345678",
    ]
    told = json.loads(run("compare", "demo", "other", "-o", "json").out)
    assert told["settings"][0] == {"path": "lora.rank", "first": 16, "second": 32}
    assert {name: value for name, value in told["figures"][1].items() if name not in ("low", "high")} == {
        "name": "loss",
        "first": 1.15,
        "second": 2.0,
        "change": 0.8500000000000001,
    }


def test_two_verdicts_are_compared_with_their_intervals(cluster: FakeCluster, run: Run) -> None:
    other = json.loads(json.dumps(cluster.objects[f"{INSIDE}/evaluations/demo-gate"]))
    other["metadata"] = {"name": "later"}
    other["status"]["results"][0] |= {"value": 11.0, "low": 10.5, "high": 11.5}
    cluster.put(other)
    assert (
        "heldout/perplexity   12.2 (11.9 to 12.5)   11 (10.5 to 11.5)   -1.2"
        in run("compare", "demo-gate", "later").out
    )


def test_different_kinds_do_not_compare(cluster: FakeCluster, run: Run) -> None:
    ran = run("compare", "demo", "evaluation/demo-gate")
    assert ran.code == 1
    assert "are of different kinds: compare two of the same" in ran.err


def test_logs_are_those_of_all_attempts(cluster: FakeCluster, run: Run) -> None:
    pod = {"metadata": {"name": "demo-train-2-x"}}
    path = f"/api/v1/namespaces/{NAMESPACE}/pods"
    answer = cluster.answer

    def with_a_pod(request: object) -> object:
        told = answer(request)  # type: ignore[arg-type]
        if request.path == path and request.query["labelSelector"].endswith("demo-train-2"):  # type: ignore[attr-defined]
            return 200, {"metadata": {}, "items": [pod]}
        return told

    cluster.answer = with_a_pod  # type: ignore[method-assign,assignment]
    cluster.answers[f"{path}/demo-train-2-x/log"] = (200, b'{"step": 1}\n{"step": 2}')
    ran = run("logs", "demo", "--tail", "5")
    assert ran.out == '{"step": 1}\n{"step": 2}\n'
    assert ran.err.splitlines() == [
        "==> attempt 0, prepare, Job demo-prepare-0 <==",
        "its pod is gone; the status says Completed",
        "==> attempt 1, train, Job demo-train-1 <==",
        "its pod is gone; the status says NodeLost: node gpu-3 does not answer",
        "==> attempt 2, train, Job demo-train-2 <==",
    ]
    assert cluster.asked[-1].query == {"container": "trainer", "tailLines": "5"}
    assert cluster.asked[-1].path.endswith("/log")


def test_the_log_of_a_container_that_waits_says_so(cluster: FakeCluster, run: Run) -> None:
    path = f"/api/v1/namespaces/{NAMESPACE}/pods"
    cluster.answers[path] = (200, {"metadata": {}, "items": [{"metadata": {"name": "p"}}]})
    cluster.refuse(f"{path}/p/log", 400, "container is waiting to start: ImagePullBackOff", reason="BadRequest")
    assert "no log yet: container is waiting to start: ImagePullBackOff\n" in run("logs", "demo").err


def test_suspend_and_resume_write_one_field_of_this_very_object(cluster: FakeCluster, run: Run) -> None:
    assert run("suspend", "demo").out == "finetunejob/demo: spec.suspend is true\n"
    assert cluster.asked[-1].body == {"metadata": {"uid": "uid-demo"}, "spec": {"suspend": True}}
    assert cluster.asked[-1].query == {"fieldManager": "kubectl-trimtab"}
    assert run("suspend", "served", "--dry-run").out == (
        "adapterrollout/served: spec.paused is true (dry run, nothing was changed)\n"
    )
    assert cluster.asked[-1].query["dryRun"] == "All"


def test_what_git_keeps_may_be_set_back(cluster: FakeCluster, run: Run) -> None:
    mark = "argocd.argoproj.io/tracking-id"
    cluster.objects[f"{INSIDE}/finetunejobs/demo"]["metadata"]["annotations"] = {mark: "x"}
    ran = run("suspend", "demo")
    assert ran.code == 0
    assert ran.err == f"It bears {mark}: what keeps it as it is in git may set this back; change it there too.\n"


def test_what_is_so_already_is_not_written(cluster: FakeCluster, run: Run) -> None:
    assert run("resume", "demo").out == "finetunejob/demo: spec.suspend is false\n"
    assert "PATCH" not in {request.method for request in cluster.asked}


def test_what_has_ended_is_not_held_up(cluster: FakeCluster, run: Run) -> None:
    ran = run("suspend", "broken")
    assert (ran.code, ran.err) == (
        1,
        "error: finetunejob/broken has ended (DatasetMalformed): there is nothing to suspend\n",
    )
    assert "PATCH" not in {request.method for request in cluster.asked}


def test_watch_into_a_pipe_writes_a_line_for_each_change(
    cluster: FakeCluster, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Client() as client:
        before = client.list("ftj")
        cluster.objects[f"{INSIDE}/finetunejobs/demo"]["status"]["summary"]["progress"] = "60%"
        del cluster.objects[f"{INSIDE}/finetunejobs/broken"]
        after = client.list("ftj")

    def pictures(*arguments: object, **options: object) -> Iterator[Listing]:
        yield from (before, before, after)
        raise KeyboardInterrupt

    monkeypatch.setattr(Client, "watch", pictures)
    ran = run("watch")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out.splitlines() == [
        "team-a  finetunejob/broken  DatasetMalformed  train.jsonl line 7 is no JSON",
        "team-a  finetunejob/demo  Training  50%  attempt 2 trains",
        "team-a  finetunejob/demo  Training  60%  attempt 2 trains",
        "team-a  finetunejob/broken  Deleted",
    ]


def test_watch_in_a_terminal_is_one_table_with_sparklines(
    cluster: FakeCluster, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Client() as client:
        listed = client.list("ftj")

    def pictures(*arguments: object, **options: object) -> Iterator[Listing]:
        yield listed
        raise KeyboardInterrupt

    monkeypatch.setattr(Client, "watch", pictures)
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    monkeypatch.setenv("COLUMNS", "120")
    ran = run("watch")
    assert (ran.code, ran.err) == (0, "")
    assert "█▆▄▃▂▂▁▁▁▁" in ran.out
    assert "CURVE" in ran.out


def test_completion_has_the_names_of_the_cluster(cluster: FakeCluster) -> None:
    with Client() as client:
        assert client.names() == ["broken", "demo", "demo-gate", "served"]
    cluster.put({**cluster.objects[f"{INSIDE}/evaluations/demo-gate"], "metadata": {"name": "demo"}})
    with Client() as client:
        assert client.names() == ["broken", "finetunejob/demo", "evaluation/demo", "demo-gate", "served"]


def test_logs_of_a_run_that_is_over_say_how_more_is_read(empty: FakeCluster, run: Run) -> None:
    attempts = [{"number": 1, "stage": "train", "jobName": "demo-train-1", "reason": "OutOfMemory"}]
    empty.put(finetunejob("demo", attempts=attempts))
    told = run("logs", "demo")
    assert told.err.splitlines()[1:] == [
        "its pod is gone; the status says OutOfMemory",
        "--storage reads what it measured, with your own keys of the object storage",
    ]
    told = run("logs", "demo", "--storage")
    assert told.code == 1
    assert told.err.endswith("error: demo has written nothing yet: its status has no runDigest\n")
