"""Decisions from the console's page, by three users, on the API server with the chart's policies and rights."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from tests.component.api_server import ApiServer, Body
from tests.component.console.test_console import Reader, entered
from tests.component.patience import Patience
from tests.component.reviews.conftest import Users
from tests.console.conftest import console
from tests.console.objects import digest, rollout

pytestmark = pytest.mark.cluster

GROUP = "/apis/trimtab.dev/v1alpha1"


@pytest.fixture
def asks(server: ApiServer, team: str) -> str:
    """An AdapterRollout that waits for an approval by one of the leads, as its status tells; its namespace."""
    body = rollout("asks")
    body["spec"]["strategy"] = {"approvals": {"required": 1, "from": {"groups": ["leads"]}}}
    status = body.pop("status") | {"approval": {"digest": digest("next"), "required": 1, "approvedBy": []}}
    made = server.create(f"{GROUP}/namespaces/{team}/adapterrollouts", body)
    assert made.accepted, made.message
    told = server.request(
        "PATCH", f"{GROUP}/namespaces/{team}/adapterrollouts/asks/status", {"status": status}, "merge"
    )
    assert told.accepted, told.message
    return team


def decides(reader: Reader, namespace: str, decision: str, message: str = "", **changes: str) -> tuple[int, str]:
    page = seen(reader, f"/ns/{namespace}/approvals", lambda text: digest("next") in text)
    form = {"kind": "AdapterRollout", "name": "asks", "digest": digest("next"), **changes}
    return reader.post(f"/ns/{namespace}/approvals", page, decision=decision, message=message, **form)


def seen(reader: Reader, path: str, shown: Callable[[str], bool]) -> str:
    """Return a page as soon as it shows something: rights of a fresh binding are not known at once."""
    patience = Patience(f"{path} shows it")
    while not shown((told := reader.get(path))[1]):
        patience.spend(None)
        time.sleep(0.1)
    return told[1]


def stored(server: ApiServer, namespace: str) -> list[Body]:
    items: list[Body] = server.get(f"{GROUP}/namespaces/{namespace}/reviews").body["items"]
    return [each["spec"] for each in items]


def test_who_is_asked_decides_as_themselves_and_the_others_are_told_why_not(
    server: ApiServer, asks: str, users: Users
) -> None:
    with console(users.of_alice) as (address, _):
        alice = entered(address)
        assert decides(alice, asks, "Comment", " ")[0] == 422
        assert decides(alice, asks, "Approve", "reads <b>well</b>", author="bob", authorGroups="safety")[0] == 303
        page = seen(alice, f"/ns/{asks}/approvals", lambda text: "reads &lt;b&gt;well&lt;/b&gt;" in text)
        assert "alice, " in page
    subject = {"kind": "AdapterRollout", "name": "asks", "digest": digest("next")}
    approval = {"subject": subject, "author": "alice", "authorGroups": ["leads"], "decision": "Approve"}
    assert stored(server, asks) == [{**approval, "message": "reads <b>well</b>"}]
    with console(users.of_bob) as (address, _):
        bob = entered(address)
        status, page = decides(bob, asks, "Approve")
        assert status == 422
        assert "bob is in none of the groups leads" in page
        assert decides(bob, asks, "Comment", "who asked?")[0] == 303
    assert sorted((each["author"], each["decision"]) for each in stored(server, asks)) == [
        ("alice", "Approve"),
        ("bob", "Comment"),
    ]
    with console(users.of_carol) as (address, _):
        carol = entered(address)
        status, page = decides(carol, asks, "Comment", "well")
        assert status == 403
        assert "cannot create resource" in page
        assert "who asked?" in carol.get(f"/ns/{asks}/approvals")[1]
    assert len(stored(server, asks)) == 2
