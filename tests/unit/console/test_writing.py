"""What is written, exactly: with whose rights, bound to what the person saw, and never what git keeps."""

from __future__ import annotations

import copy
import html
import re
from typing import Any

import pytest
import yaml
from starlette.testclient import TestClient

from tests.console.objects import digest, rollout, training
from tests.unit.console.conftest import ORIGIN, WatchedCluster

JOB = "/ns/team-a/finetunejobs/field-guide-v4"
ROLLOUT = "/ns/team-a/adapterrollouts/field-guide"
API = "/apis/trimtab.dev/v1alpha1/namespaces/team-a"
JOB_HEAD = "apiVersion: trimtab.dev/v1alpha1\nkind: FineTuneJob\n"
ANSWERS = {
    "name": "made",
    "base_model": "s3://models/base",
    "data": "s3://datasets/rows/",
    "output": "s3://adapters/out",
    "secret_name": "object-storage",
    "gpus": "1",
    "serving": "",
}


def writes(cluster: WatchedCluster) -> list[tuple[str, str, object]]:
    return [
        (each.method, each.path, each.body)
        for each in cluster.asked
        if each.method != "GET" and "dryRun" not in each.query
    ]


def test_suspend_writes_one_field_of_that_object(browser: TestClient, cluster: WatchedCluster, form_token: str) -> None:
    told = browser.post(f"{JOB}/suspend", data={"form_token": form_token, "uid": "uid-field-guide-v4"}, headers=ORIGIN)
    assert (told.status_code, told.headers["location"]) == (303, f"{JOB}?done=suspended")
    patch = {"metadata": {"uid": "uid-field-guide-v4"}, "spec": {"suspend": True}}
    assert writes(cluster) == [("PATCH", f"{API}/finetunejobs/field-guide-v4", patch)]
    page = browser.get(f"{JOB}?done=suspended").text
    assert "It is held up." in page
    assert f'action="{JOB}/resume"' in page, "what was written is shown before any watch tells of it"


def test_a_rollout_is_paused_by_its_own_field(browser: TestClient, cluster: WatchedCluster, form_token: str) -> None:
    browser.post(f"{ROLLOUT}/suspend", data={"form_token": form_token, "uid": "uid-field-guide"}, headers=ORIGIN)
    assert writes(cluster)[0][2] == {"metadata": {"uid": "uid-field-guide"}, "spec": {"paused": True}}


@pytest.mark.parametrize("path", [f"{JOB}/suspend", f"{ROLLOUT}/back"])
def test_one_that_was_made_anew_since_is_not_written(
    path: str, browser: TestClient, cluster: WatchedCluster, form_token: str
) -> None:
    form = {"form_token": form_token, "uid": "uid-before", "to": digest("field-guide-v2")}
    told = browser.post(path, data=form, headers=ORIGIN)
    assert told.status_code == 409
    assert "is another one than the page showed" in told.text
    assert "load the page again" in told.text
    assert writes(cluster) == []


def test_what_git_keeps_is_left_to_git(browser: TestClient, cluster: WatchedCluster, form_token: str) -> None:
    mark: dict[str, Any] = {"annotations": {"argocd.argoproj.io/tracking-id": "a"}}
    cluster.put(training("kept", **mark))
    cluster.put(rollout("kept", **mark))
    assert "Kept as it is in git" in browser.get("/ns/team-a/finetunejobs/kept").text
    form = {"form_token": form_token, "uid": "uid-kept", "to": digest("field-guide-v2")}
    assert browser.post("/ns/team-a/finetunejobs/kept/suspend", data=form, headers=ORIGIN).status_code == 409
    assert browser.post("/ns/team-a/adapterrollouts/kept/back", data=form, headers=ORIGIN).status_code == 409
    assert writes(cluster) == []


def test_what_has_ended_is_not_held_up(browser: TestClient, form_token: str) -> None:
    form = {"form_token": form_token, "uid": "u"}
    told = browser.post("/ns/team-a/finetunejobs/field-guide-v3/suspend", data=form, headers=ORIGIN)
    assert told.status_code == 422
    assert "there is nothing to suspend" in told.text


def test_the_way_back_is_shown_before_it_is_gone(browser: TestClient, cluster: WatchedCluster, form_token: str) -> None:
    before = digest("field-guide-v2")
    page = browser.get(f"{ROLLOUT}/back?to={before}").text
    assert "a dry run says so" in page
    assert f"digest: {before}" in page
    assert writes(cluster) == []
    form = {"form_token": form_token, "uid": "uid-field-guide", "to": before}
    told = browser.post(f"{ROLLOUT}/back", data=form, headers=ORIGIN)
    assert told.headers["location"] == f"{ROLLOUT}?done=back"
    artifact = {"uri": f"s3://adapters/field-guide/adapters/{before[7:]}", "digest": before}
    assert writes(cluster) == [
        (
            "PATCH",
            f"{API}/adapterrollouts/field-guide",
            {
                "metadata": {"uid": "uid-field-guide"},
                "spec": {"source": {"artifact": artifact, "evaluationName": None, "follow": None}},
            },
        )
    ]


def test_no_way_leads_to_what_was_never_served(browser: TestClient, cluster: WatchedCluster, form_token: str) -> None:
    form = {"form_token": form_token, "uid": "u", "to": digest("elsewhere")}
    assert browser.get(f"{ROLLOUT}/back?to={digest('elsewhere')}").status_code == 422
    assert browser.post(f"{ROLLOUT}/back", data=form, headers=ORIGIN).status_code == 422
    assert writes(cluster) == []


def test_what_the_api_server_would_refuse_is_told_before(browser: TestClient, cluster: WatchedCluster) -> None:
    cluster.on_patch = lambda _, request: (403, {"message": "jane cannot patch adapterrollouts", "code": 403})
    told = browser.get(f"{ROLLOUT}/back?to={digest('field-guide-v2')}").text
    assert "jane cannot patch adapterrollouts" in told
    assert "disabled" in told


def test_a_form_becomes_manifests_that_can_be_shared_by_address(browser: TestClient, cluster: WatchedCluster) -> None:
    told = browser.get("/ns/team-a/new", params=ANSWERS).text
    assert "kind: FineTuneJob" in told
    assert "kind: Evaluation" in told
    assert writes(cluster) == []
    more = {**ANSWERS, "nodes": "2", "method": "DPO", "trials": "8", "export_to": "s3://models/made"}
    told = browser.get("/ns/team-a/new", params=more).text
    assert all(line in told for line in ("kind: FineTuneSweep", "nodes: 2", "method: DPO", "kind: AdapterExport"))
    for name, word in (("nodes", "the number of nodes"), ("trials", "the number of trials"), ("method", "no method")):
        assert word in browser.get("/ns/team-a/new", params={**ANSWERS, name: "-3"}).text
    wrong = browser.get("/ns/team-a/new", params={**ANSWERS, "data": "rows.jsonl"}).text
    assert "is no address that a FineTuneJob takes" in wrong


def test_check_stores_nothing_and_make_makes(browser: TestClient, cluster: WatchedCluster, form_token: str) -> None:
    from trimtab.manifests import Answers, manifests

    written = manifests(Answers("made", "s3://models/base", "s3://rows/", "s3://out/a"))
    form = {"form_token": form_token, "manifest": written.replace("\n", "\r\n"), "wish": "check"}
    page = browser.get("/ns/team-a/new", params=ANSWERS)
    (action,) = re.findall(r'<form [^>]*method="post" action="([^"]+/new[^"]*)"', page.text)
    checked = browser.post(html.unescape(action), data=form, headers=ORIGIN).text
    assert "would take it" in checked
    assert 'name="base_model" value="s3://models/base"' in checked, "the answers are there still"
    assert writes(cluster) == []
    made = browser.post("/ns/team-a/new", data={**form, "wish": "make"}, headers=ORIGIN).text
    assert 'href="/ns/team-a/finetunejobs/made"' in made
    bodies = list(yaml.safe_load_all(written))
    assert writes(cluster) == [
        ("POST", f"{API}/finetunejobs", bodies[0]),
        ("POST", f"{API}/evaluations", bodies[1]),
    ]


def test_a_search_and_an_export_are_made_too(browser: TestClient, cluster: WatchedCluster, form_token: str) -> None:
    from trimtab.manifests import Answers, manifests

    answers = Answers("made", "s3://models/base", "s3://rows/", "s3://out/a", trials=4, export="s3://models/made")
    form = {"form_token": form_token, "manifest": manifests(answers), "wish": "make"}
    made = browser.post("/ns/team-a/new", data=form, headers=ORIGIN).text
    assert '<a href="/ns/team-a/finetunesweeps/made">FineTuneSweep made</a>' in made
    assert "AdapterExport made" in made
    assert "adapterexports" not in made, "which has no page"
    assert [path for _, path, _ in writes(cluster)] == [f"{API}/finetunesweeps", f"{API}/adapterexports"]


def test_nothing_is_made_where_one_of_them_is_refused(
    browser: TestClient, cluster: WatchedCluster, form_token: str
) -> None:
    from trimtab.manifests import Answers, manifests

    cluster.refuse(f"{API}/evaluations", 409, 'evaluations.trimtab.dev "made" already exists', reason="AlreadyExists")
    written = manifests(Answers("made", "s3://models/base", "s3://rows/", "s3://out/a"))
    form = {"form_token": form_token, "manifest": written, "wish": "make"}
    told = browser.post("/ns/team-a/new", data=form, headers=ORIGIN)
    assert told.status_code == 422
    assert "already exists: choose another name" in told.text
    assert writes(cluster) == []


@pytest.mark.parametrize(
    ("manifest", "sentence"),
    [
        ("apiVersion: v1\nkind: Secret\nmetadata: {name: a}", "another kind"),
        ("apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRoleBinding\nmetadata: {name: a}", "another kind"),
        (f"{JOB_HEAD}metadata: {{name: a, namespace: kube-system}}", "another namespace"),
        (f"{JOB_HEAD}metadata: {{}}", "no name"),
        ("a: 1\nb: [", "line 2: this is no YAML: expected the node content, but found"),
        ("!!python/object/apply:os.system ['true']", "this is no YAML"),
        ("", "there are 0 objects"),
        ("- 1", "another kind"),
        ("[" * 5000, "nested more than 60 deep"),
        ("a: &a [1]\nb: *a", "an alias"),
        ("a" * 100_001, "100,001 characters"),
    ],
)
def test_what_the_form_does_not_make(
    manifest: str, sentence: str, browser: TestClient, cluster: WatchedCluster, form_token: str
) -> None:
    form = {"form_token": form_token, "manifest": manifest, "wish": "make"}
    told = browser.post("/ns/team-a/new", data=form, headers=ORIGIN)
    assert told.status_code == 422
    assert sentence in told.text
    assert not [each for each in cluster.asked if each.method == "POST"]


def test_a_manifest_is_read_as_kubectl_reads_it(browser: TestClient, cluster: WatchedCluster, form_token: str) -> None:
    metadata, spec = "{name: a, annotations: {made: 2026-11-29}}", "{training: {learningRate: 1e-4}}"
    written = f"{JOB_HEAD}metadata: {metadata}\nspec: {spec}"
    form = {"form_token": form_token, "manifest": written, "wish": "make"}
    assert browser.post("/ns/team-a/new", data=form, headers=ORIGIN).status_code == 200
    body = writes(cluster)[0][2]
    assert isinstance(body, dict)
    assert body["metadata"]["annotations"] == {"made": "2026-11-29"}
    assert body["spec"] == {"training": {"learningRate": 1e-4}}


@pytest.mark.parametrize("spec", ["{x: !!binary aGk=}", "{x: !!set {a}}", "{suspend: true, suspend: false}"])
def test_what_no_json_says_is_not_made(
    spec: str, browser: TestClient, cluster: WatchedCluster, form_token: str
) -> None:
    form = {"form_token": form_token, "manifest": f"{JOB_HEAD}metadata: {{name: a}}\nspec: {spec}", "wish": "make"}
    assert browser.post("/ns/team-a/new", data=form, headers=ORIGIN).status_code == 422
    assert writes(cluster) == []


REVIEW = {
    "metadata": {"name": "field-guide-v3-x1", "namespace": "team-a", "creationTimestamp": "2026-11-28T12:00:00Z"},
    "spec": {
        "subject": {"kind": "Evaluation", "name": "field-guide-v3", "digest": digest("field-guide-v3")},
        "decision": "Reject",
        "message": "the tone is <b>off</b>",
        "author": "eve",
    },
}


def test_a_decision_is_a_review_by_who_asks(browser: TestClient, cluster: WatchedCluster, form_token: str) -> None:
    cluster.answers[f"{API}/reviews"] = (200, {"metadata": {}, "items": [REVIEW]})
    page = browser.get("/ns/team-a/approvals").text
    assert "the tone is &lt;b&gt;off&lt;/b&gt;" in page
    assert "eve" in page
    cluster.answers[f"{API}/reviews"] = (201, copy.deepcopy(REVIEW))
    subject = REVIEW["spec"]["subject"]  # type: ignore[index]
    form = {"form_token": form_token, **subject, "decision": "Approve", "message": " well done "}
    told = browser.post("/ns/team-a/approvals", data=form, headers=ORIGIN)
    assert told.headers["location"] == "/ns/team-a/approvals?done=approve"
    body = writes(cluster)[-1][2]
    assert isinstance(body, dict)
    assert body["spec"] == {"subject": subject, "decision": "Approve", "message": "well done", "author": "jane"}


@pytest.mark.parametrize(
    "change",
    [
        {"decision": "Own"},
        {"decision": "Comment", "message": " "},
        {"decision": "Approve", "message": "a" * 1025},
        {"kind": "Secret"},
        {"digest": "sha256:1"},
    ],
)
def test_what_is_no_decision_is_refused(
    change: dict[str, str], browser: TestClient, cluster: WatchedCluster, form_token: str
) -> None:
    subject = {"kind": "Evaluation", "name": "field-guide-v3", "digest": digest("field-guide-v3")}
    form = {"form_token": form_token, **subject, "decision": "Approve", **change}
    assert browser.post("/ns/team-a/approvals", data=form, headers=ORIGIN).status_code == 422
    assert writes(cluster) == []


def test_a_rollout_that_waits_comes_first_and_is_decided_about_in_the_groups_that_it_asks_for(
    browser: TestClient, cluster: WatchedCluster, form_token: str
) -> None:
    waits = rollout("asks")
    waits["spec"]["strategy"] = {"approvals": {"required": 2, "from": {"groups": ["leads", "owners"]}}}
    waits["status"]["approval"] = {"digest": digest("next"), "required": 2, "approvedBy": ["rita"]}
    cluster.put(waits)
    cluster.answers[f"{API}/reviews"] = (200, {"metadata": {}, "items": []})
    page = browser.get("/ns/team-a/approvals").text
    assert "1 of 2 approvals" in page
    assert page.index("/adapterrollouts/asks") < page.index("/adapterrollouts/field-guide-next")
    cluster.answers[f"{API}/reviews"] = (201, {})
    form = {"form_token": form_token, "kind": "AdapterRollout", "name": "asks", "digest": digest("next")}
    browser.post("/ns/team-a/approvals", data={**form, "decision": "Reject", "message": "no"}, headers=ORIGIN)
    body = writes(cluster)[-1][2]
    assert isinstance(body, dict)
    assert body["spec"]["authorGroups"] == ["leads"]
    assert body["metadata"] == {"generateName": "asks-reject-", "namespace": "team-a"}


def test_who_is_in_none_of_the_groups_that_are_asked_is_told_before(
    browser: TestClient, cluster: WatchedCluster, form_token: str
) -> None:
    waits = rollout("asks")
    waits["spec"]["strategy"] = {"approvals": {"required": 1, "from": {"groups": ["owners"]}}}
    waits["status"]["approval"] = {"digest": digest("next"), "required": 1, "approvedBy": []}
    cluster.put(waits)
    form = {"form_token": form_token, "kind": "AdapterRollout", "name": "asks", "digest": digest("next")}
    told = browser.post("/ns/team-a/approvals", data={**form, "decision": "Approve"}, headers=ORIGIN)
    assert told.status_code == 422
    assert "jane is in none of the groups owners" in told.text
    assert writes(cluster) == []


def said(decision: str, namespace: str = "team-a", **changes: Any) -> dict[str, Any]:
    subject = {"kind": "AdapterRollout", "name": "asks", "digest": digest("next")}
    metadata = {"name": f"asks-{decision.lower()}", "namespace": namespace, "creationTimestamp": "2026-11-28T12:00:00Z"}
    spec = {"subject": {**subject, **changes.pop("subject", {})}, "decision": decision, "author": "eve", "message": "x"}
    return {"metadata": metadata, "spec": {**spec, **changes}}


def test_what_stands_is_what_the_operator_counts(browser: TestClient, cluster: WatchedCluster) -> None:
    waits = rollout("asks")
    waits["status"]["approval"] = {"digest": digest("next"), "required": 1, "approvedBy": []}
    cluster.put(waits)
    nearly = f"{digest('next')[:-1]}{'0' if digest('next')[-1] != '0' else '1'}"
    unbound = said("Approve", author="forged")
    unbound["status"] = {"conditions": [{"type": "Recorded", "status": "False", "reason": "AuthorNotBound"}]}
    gone = said("Approve", author="withdrawn")
    gone["metadata"]["deletionTimestamp"] = "2026-11-28T13:00:00Z"
    reviews = [
        *(said(decision) for decision in ("Reject", "Approve", "Comment")),
        unbound,
        gone,
        said("Approve", author="nearly", subject={"digest": nearly}),
        said("Approve", "team-b", author="elsewhere"),
    ]
    cluster.answers[f"{API.rpartition('/namespaces')[0]}/reviews"] = (200, {"metadata": {}, "items": reviews})
    page = browser.get("/ns/-/approvals").text
    card = page[page.index('id="decide-team-a-AdapterRollout-asks-') :].partition("</li>")[0]
    assert card.count("eve") == 1
    assert "Reject" in card
    assert not [name for name in ("forged", "nearly", "elsewhere", "withdrawn") if name in card]
    assert page.count("counts for nothing") == 2
    assert "AdapterRollout asks in team-b" in page


def test_what_is_being_taken_out_is_not_to_be_decided_about(browser: TestClient, cluster: WatchedCluster) -> None:
    gone = rollout("leaves")
    gone["status"]["step"] = {"digest": digest("old"), "phase": "Draining"}
    cluster.put(gone)
    cluster.answers[f"{API}/reviews"] = (200, {"metadata": {}, "items": []})
    page = browser.get("/ns/team-a/approvals").text
    assert digest("old") not in page
