"""What is told outside of the cluster: of which conditions, to whom, under which id, in which words."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from trimtab_operator.domain.kinds import KINDS
from trimtab_operator.domain.notifications import Endpoint, Format, Transition, message_of, transitions_of
from trimtab_operator.domain.notifications.endpoints import trouble_of
from trimtab_operator.domain.notifications.messages import cloud_event, plain

NOW = "2026-11-29T12:00:00Z"
EVENTS = Endpoint(name="bus", url="https://bus.example/in", secret_name="bus")
SLACK = Endpoint(name="chat", secret_name="chat", format=Format.SLACK, cluster="prod")


def condition(kind: str, status: str, reason: str, message: str = "", since: str = NOW) -> dict[str, Any]:
    return {"type": kind, "status": status, "reason": reason, "message": message, "lastTransitionTime": since}


def body(*conditions: Any, kind: str = "FineTuneJob", **status: Any) -> dict[str, Any]:
    return {
        "apiVersion": "trimtab.dev/v1alpha1",
        "kind": kind,
        "metadata": {"namespace": "team", "name": "demo", "uid": "u-1", "generation": 2},
        "status": {**status, "conditions": list(conditions)},
    }


def said(one: dict[str, Any], version: int = 7) -> tuple[Transition, ...]:
    return transitions_of(KINDS[one["kind"]], one, version, NOW)


def mark(one: dict[str, Any]) -> str:
    (only,) = said(one)
    return only.mark


def test_the_summary_is_told_whatever_it_says_and_verdicts_once_there_is_one() -> None:
    waits = said(body(condition("Succeeded", "Unknown", "Training"), condition("Passed", "Unknown", "NotYet")))
    assert [(each.type, each.reason) for each in waits] == [("Succeeded", "Training")]
    ended = said(
        body(condition("Passed", "False", "Regressed"), condition("Succeeded", "True", "Completed"), kind="Evaluation")
    )
    assert [(each.type, each.reason) for each in ended] == [("Succeeded", "Completed"), ("Passed", "Regressed")]
    moving = condition("Progressing", "True", "Loading")
    assert [each.type for each in said(body(moving, condition("Ready", "True", "Serving"), kind="AdapterRollout"))] == [
        "Ready"
    ]
    assert [each.reason for each in said(body(condition("Recorded", "True", "Approved"), kind="Review"))] == [
        "Approved"
    ]
    assert said({**body(), "status": {}}) == ()


def test_only_of_what_has_ended_it_is_known_since_when_it_will_not_change() -> None:
    end, later = "2026-11-29T10:00:00Z", "2026-11-29T11:00:00Z"
    completed = condition("Succeeded", "True", "Completed", since=end)
    warned = condition("Warned", "True", "LossRises", since="2026-11-29T08:00:00Z")
    tracked = condition("Tracked", "True", "Tracked", since=later)
    assert {each.type: each.final for each in said(body(warned, tracked, completed))} == {
        "Succeeded": end, "Warned": end, "Tracked": later,
    }  # fmt: skip
    goes_on = (
        body(condition("Succeeded", "Unknown", "Training", since=end), warned),
        body(condition("Ready", "False", "Loading", since=end), kind="AdapterRollout"),
        body(warned),
        body(condition("Succeeded", "True", "Completed", since="2026-11-29T10:00:00+01:00"), warned),
    )
    assert {each.final for one in goes_on for each in said(one)} == {""}


def test_an_id_is_that_of_a_change_and_of_nothing_else() -> None:
    training = body(condition("Succeeded", "Unknown", "Training"), attempts=[{"number": 1}])
    again = body(condition("Succeeded", "Unknown", "Training", "another message"), attempts=[{"number": 1}], failures=1)
    assert said(training, version=7)[0].id == said(again, version=900)[0].id
    assert said(training)[0].id.startswith("u-1-Succeeded-")
    others = [
        body(condition("Succeeded", "Unknown", "Training"), attempts=[{"number": 1}, {"number": 2}]),
        body(condition("Succeeded", "Unknown", "Retrying"), attempts=[{"number": 1}]),
        body(condition("Succeeded", "True", "Training"), attempts=[{"number": 1}]),
        body(condition("Succeeded", "Unknown", "Training", since="2026-11-30T12:00:00Z"), attempts=[{"number": 1}]),
    ]
    assert len({mark(each) for each in (training, *others)}) == 5


def test_a_rollout_tells_of_which_adapter() -> None:
    served, new = {"digest": "sha256:a"}, {"digest": "sha256:b"}
    stories = {
        "sha256:a": body(condition("Ready", "True", "Serving"), kind="AdapterRollout", served=served),
        "sha256:b": body(condition("Ready", "True", "Canary"), kind="AdapterRollout", served=served, step=new),
        "sha256:c": body(
            condition("Ready", "True", "RolledBack"),
            kind="AdapterRollout",
            served=served,
            rejected=[{"digest": "sha256:x"}, {"digest": "sha256:c"}],
        ),
        "sha256:d": body(
            condition("Ready", "True", "AwaitingApproval"),
            kind="AdapterRollout",
            served=served,
            approval={"digest": "sha256:d"},
        ),
    }
    for digest, one in stories.items():
        assert said(one)[0].digest == digest


WORDS = ["conditions", "attempts", "step", "rejected", "type", "status", "reason", "number", "Succeeded", "True"]
ANYTHING = st.sampled_from([None, True, 5, 1.5, *WORDS])
OBJECTS = st.dictionaries(st.sampled_from(WORDS), ANYTHING, max_size=4)


@settings(deadline=None)
@given(
    st.dictionaries(st.sampled_from(WORDS), ANYTHING | OBJECTS | st.lists(ANYTHING | OBJECTS, max_size=3), max_size=6)
)
def test_whatever_somebody_wrote_into_a_status_is_read_without_an_error(status: dict[str, Any]) -> None:
    one = {**body(), "status": status}
    for transition in said(one):
        message_of(EVENTS, transition)


def test_what_is_long_is_cut() -> None:
    (long,) = said(body(condition("Succeeded", "False", "R" * 500, "m" * 9000)))
    assert (len(long.reason), len(long.message)) == (64, 1024)


def test_an_event_has_what_the_specification_asks_for() -> None:
    (one,) = said(
        body(
            condition("Succeeded", "True", "Completed", "published"),
            attempts=[{"number": 3}],
            artifact={"digest": "sha256:a"},
        )
    )
    event = cloud_event(EVENTS, one)
    assert event == {
        "specversion": "1.0",
        "id": one.id,
        "source": "/apis/trimtab.dev/v1alpha1/namespaces/team/finetunejobs/demo",
        "type": "dev.trimtab.finetunejob.condition",
        "subject": "team/demo",
        "time": NOW,
        "reason": "Completed",
        "datacontenttype": "application/json",
        "data": {
            "apiVersion": "trimtab.dev/v1alpha1",
            "kind": "FineTuneJob",
            "namespace": "team",
            "name": "demo",
            "uid": "u-1",
            "generation": 2,
            "condition": {
                "type": "Succeeded",
                "status": "True",
                "reason": "Completed",
                "message": "published",
                "lastTransitionTime": NOW,
            },
            "attempt": 3,
            "digest": "sha256:a",
        },
    }
    named = EVENTS.model_copy(update={"cluster": "prod.example"})
    assert cloud_event(named, one)["source"].startswith("//prod.example/apis/")


def test_a_text_calls_nobody_and_links_nowhere() -> None:
    hostile = "<!channel> <https://evil.example|click> & @here"
    (one,) = said(body(condition("Succeeded", "False", "DataInvalid", hostile)))
    message = message_of(SLACK, one)
    text = json.loads(message.body)["text"]
    assert message.content_type == "application/json"
    assert text.startswith("*FineTuneJob team/demo on prod: DataInvalid*\n")
    assert "<" not in text
    assert "@here" not in text
    assert plain("a & b") == "a &amp; b"
    assert plain("it failed\n*AdapterRollout team/guide: Serving*\u2028all is well") == (
        "it failed *AdapterRollout team/guide: Serving* all is well"
    )
    (one,) = said(body(condition("Succeeded", "False", "<!channel>", "[click](https://evil.example) ![x][y]")))
    text = json.loads(message_of(SLACK, one).body)["text"]
    assert "<" not in text, "nor does what somebody wrote into a reason"
    assert "](" not in text, "a link where Markdown is understood"
    assert "][" not in text


def test_an_endpoint_is_told_what_it_asks_for() -> None:
    (done,) = said(body(condition("Succeeded", "True", "Completed")))
    base = {"name": "a", "url": "https://a.example", "secretName": "a"}
    wants: dict[str, tuple[dict[str, list[str]], bool]] = {
        "everything": ({}, True),
        "its kind": ({"kinds": ["FineTuneJob"]}, True),
        "another kind": ({"kinds": ["Evaluation"]}, False),
        "its reason": ({"reasons": ["Completed"]}, True),
        "another reason": ({"reasons": ["Retrying"]}, False),
        "its namespace": ({"namespaces": ["team", "other"]}, True),
        "another namespace": ({"namespaces": ["other"]}, False),
    }
    for story, (chosen, wanted) in wants.items():
        assert Endpoint.model_validate({**base, **chosen}).wants(done) is wanted, story


WRONG: dict[str, tuple[dict[str, object], str]] = {
    "nowhere": ({"url": "", "secretName": "", "format": "Slack"}, "neither url nor secretName"),
    "unsigned": ({"secretName": ""}, "CloudEvents are signed: name a Secret"),
    "a reason that is misspelt": ({"reasons": ["Complete"]}, "did you mean Completed?"),
    "a reason of another kind": ({"kinds": ["Review"], "reasons": ["Training"]}, "Training is no reason of Review"),
    "a kind that is misspelt": ({"kinds": ["FinetuneJob"]}, "did you mean FineTuneJob?"),
    "a file": ({"url": "file:///etc/passwd"}, "must begin with https:// or http://"),
    "a password": ({"url": "https://me:secret@a.example"}, "must not hold a name or a password"),
    "a fragment": ({"url": "https://a.example/#x"}, "no fragment"),
    "a line break": ({"url": "https://a.example/\nHost: b"}, "the url"),
    "no port": ({"url": "https://a.example:http"}, "the url is none"),
    "a name that is none": ({"name": "My Slack"}, "name"),
    "a format that is none": ({"format": "Teams"}, "format"),
    "a field that is none": ({"secret": "x"}, "secret"),
}


@pytest.mark.parametrize("story", WRONG)
def test_what_cannot_be_meant_is_refused_in_words(story: str) -> None:
    changed, words = WRONG[story]
    with pytest.raises(ValidationError) as caught:
        Endpoint.model_validate({"name": "a", "url": "https://a.example", "secretName": "a", **changed})
    assert words in str(caught.value)


def test_words_about_an_address_do_not_repeat_it() -> None:
    for url in ("ftp://secret.example/token", "https://u:token@x", "https://x/token#f", "https://x:token"):
        assert trouble_of(url)
        assert "token" not in trouble_of(url)
