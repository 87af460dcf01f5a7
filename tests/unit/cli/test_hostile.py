"""Names, messages and logs of a tenant who means harm: nothing of them reaches a terminal as a command."""

from __future__ import annotations

import io
import itertools
import unicodedata
from datetime import UTC, datetime
from typing import Any

import pytest
from rich.console import Console
from trimtab.client import Client
from trimtab.comparison import compare
from trimtab.kinds import kinds
from trimtab.objects import parse
from trimtab.rendering import as_html, listing, rendered

from tests.unit.cli.cluster import HOSTILE, NAMESPACE, FakeCluster, condition
from tests.unit.cli.conftest import Run

PODS = f"/api/v1/namespaces/{NAMESPACE}/pods"
SHOWN = "\\x1b[2J\\x1b]0;owned\\x07[bold red]x[/] \\u202egnp.exe\\x0d\\x0aFORGED  Completed\\x9b31m\\u2028"


def hostile(kind: str, name: str) -> dict[str, Any]:
    attempt = {"number": 0, "stage": HOSTILE, "jobName": HOSTILE, "reason": HOSTILE, "message": HOSTILE}
    return {
        "kind": kind,
        "metadata": {"name": name, "creationTimestamp": HOSTILE},
        "spec": {"adapterName": HOSTILE, HOSTILE: HOSTILE, "list": [{"name": HOSTILE, HOSTILE: 1}]},
        "status": {
            "conditions": [condition(each, "False", HOSTILE, HOSTILE) for each in ("Succeeded", "Ready", "Passed")],
            "summary": dict.fromkeys(
                ("progress", "loss", "step", "adapter", "metric", "value", "pods", "trials"), HOSTILE
            ),
            "attempts": [attempt],
            "results": [{"task": HOSTILE, "metric": HOSTILE, "value": 1.0}],
            "artifact": {"uri": HOSTILE, "digest": HOSTILE},
            "reportURI": HOSTILE,
            "podReasons": [{"pod": HOSTILE, "reason": HOSTILE, "message": HOSTILE}],
            "best": {"fineTuneJobName": HOSTILE, "parameters": {HOSTILE: HOSTILE}},
            "served": {"digest": HOSTILE, "uri": HOSTILE},
            "curve": {"steps": [1, 2], "loss": [2.0, 1.0]},
        },
    }


KINDS = ("FineTuneJob", "FineTuneSweep", "Evaluation", "AdapterRollout")


@pytest.fixture
def attacked(empty: FakeCluster) -> FakeCluster:
    for kind in KINDS:
        for name in ("one", "two"):
            body = empty.put(hostile(kind, name))
            body["spec"][HOSTILE] = f"{name}{HOSTILE}"
            body["metadata"]["name"] = f"{name}{HOSTILE}"
    empty.answers[PODS] = (200, {"metadata": {}, "items": [{"metadata": {"name": "pod"}}]})
    empty.answers[f"{PODS}/pod/log"] = (200, HOSTILE.encode("utf-8", "replace") + b"\xff\n")
    return empty


def harmless(text: str) -> bool:
    return not {unicodedata.category(each) for each in text.replace("\n", "")} & {"Cc", "Cf", "Zl", "Zp", "Cs"}


COMMANDS = [
    ("list",),
    ("list", "-A", "-o", "wide"),
    *((verb, f"{kind.lower()}/one") for kind in KINDS for verb in ("describe", "suspend", "resume")),
    *(("compare", f"{kind.lower()}/one", f"{kind.lower()}/two") for kind in KINDS),
    ("curve", "finetunejob/one", "finetunejob/two"),
    ("logs", "finetunejob/one"),
    ("logs", "evaluation/one"),
    *((*command, "-o", form) for form in ("json", "yaml") for command in (("list",), ("describe", "evaluation/one"))),
    ("describe", "nothing" + HOSTILE),
    ("list", HOSTILE),
]


@pytest.mark.parametrize("arguments", COMMANDS, ids=lambda each: " ".join(each[:2]).encode("unicode_escape").decode())
def test_no_verb_lets_it_out(arguments: tuple[str, ...], attacked: FakeCluster, run: Run) -> None:
    ran = run(*arguments)
    assert harmless(ran.out), ran.out.encode("unicode_escape")
    assert harmless(ran.err), ran.err.encode("unicode_escape")
    assert "Traceback" not in ran.err


def test_it_is_shown_as_what_it_is_and_forges_no_row(attacked: FakeCluster, run: Run) -> None:
    lines = run("list", "ftj").out.splitlines()
    assert len(lines) == 3
    assert all(line.count(SHOWN) == 6 for line in lines[1:])


def test_a_terminal_gets_colours_of_ours_alone(attacked: FakeCluster) -> None:
    with Client() as client:
        values = (
            client.list(),
            client.describe("ftj/one"),
            client.compare("ftj/one", "ftj/two"),
            client.get("ftj/one"),
        )
    for value in values:
        console = Console(width=200, force_terminal=True, markup=False, highlight=False)
        with console.capture() as captured:
            console.print(rendered(value))
        text = captured.get()
        assert "\x1b[2J" not in text
        assert "\x1b]" not in text
        assert "\u202e" not in text
        assert "[bold red]x[/]" in text


def test_a_notebook_gets_no_markup_of_theirs(attacked: FakeCluster) -> None:
    body = next(body for path, body in attacked.objects.items() if path.endswith("/finetunejobs/one"))
    body["status"]["conditions"][0]["message"] = "<script>alert(1)</script><img src=x onerror=alert(1)>"
    with Client() as client:
        page = as_html(client.get("ftj/one"))
    assert "<script" not in page
    assert "<img" not in page
    assert "&lt;script&gt;" in page


@pytest.mark.parametrize("odd", [None, 1, "x", [], {}, [1], [[]], {"a": 1}, True, 1e400, [None, {}], float("nan")])
def test_whatever_a_status_holds_everything_of_it_can_be_shown(odd: Any) -> None:
    fields = ("conditions", "attempts", "progress", "curve", "dataset", "results", "artifact", "served", "pods",
              "podReasons", "best", "summary", "acceleratorSeconds", "reportURI")  # fmt: skip
    inner = {"steps": odd, "loss": odd, "validationSteps": [1], "validationLoss": odd, "step": odd, "digest": odd}
    nested = {**dict.fromkeys(fields, inner), "conditions": [inner, odd], "attempts": [inner, odd], "results": [inner]}
    bodies = [
        {"metadata": {"name": "a"}, "spec": {"suspend": odd}, "status": dict.fromkeys(fields, odd)},
        {"metadata": odd, "spec": odd, "status": odd},
        {"metadata": {"name": odd, "creationTimestamp": odd}, "spec": {}, "status": nested},
    ]
    console = Console(width=100, file=io.StringIO())
    for kind in kinds():
        objects = [parse(kind, body) for body in bodies]
        for first, second in itertools.product(objects, objects):
            console.print(rendered(compare(first, second)))
        for each in objects:
            console.print(rendered(each))
        console.print(listing(objects, datetime.now(UTC), wide=True, namespaces=True, curves=True))
