"""A day of a person at the console, in Chromium, against a real API server: from the command to going back."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.console.conftest import GROUP, Opens, Team, console
from tests.console.objects import HOSTILE, condition, digest, rollout, training
from tests.console.window import Window, window

pytestmark = pytest.mark.cluster

LOSS = "document.querySelector('trimtab-curve').shadowRoot.querySelector('[data-points]').dataset.points"


def test_a_day(opens: Opens, team_of_three: Team, capsys: pytest.CaptureFixture[str]) -> None:
    """Find the run, see its curve move, read why another failed, compare two, hold up and let go, approve, go back."""
    team, home = team_of_three, f"/ns/{team_of_three.namespace}"
    with opens("jane") as page:
        assert "token" not in page.run("location.href")
        assert not [each for each in page.cookies() if not each["httpOnly"] or each["sameSite"] != "Strict"]
        assert "field-guide-v4" in page.text()

        page.click('a[href$="/finetunejobs/field-guide-v4"]', "!!document.querySelector('trimtab-curve')")
        page.wait(f"{LOSS} === '31'")
        page.wait("!document.getElementById('live-mark').hidden")
        page.run("window.kept = document.querySelector('trimtab-curve')")
        team.status("finetunejobs", "field-guide-v4", training(step=150)["status"])
        page.wait(f"{LOSS} === '38'")
        assert page.run("window.kept === document.querySelector('trimtab-curve')"), (
            "the picture goes on, and is no new one"
        )
        assert "step 150 of 200" in page.text()

        page.visit(home)
        page.click('a[href$="/finetunejobs/chat-tone-v1"]', "document.title.startsWith('chat-tone-v1')")
        assert "line 7 is no JSON" in page.text()
        assert "Correct the file" in page.text()

        page.visit(f"{home}/finetunejobs?order=name")
        page.wait("!document.getElementById('live-mark').hidden")
        page.run("document.querySelector('input[value=chat-tone-v1]').click()")
        team.status("finetunejobs", "field-guide-v4", training(step=160)["status"])
        page.wait("document.getElementById('live').innerText.includes('80%')")
        assert page.run("document.querySelector('input[value=chat-tone-v1]').checked"), "what was ticked stays so"
        page.run("document.querySelector('input[value=chat-tone-v1]').click()")
        for name in ("field-guide-v2", "field-guide-v3"):
            page.run(f"document.querySelector('input[value={name}]').click()")
        page.click("button[form=comparing]", "document.title.startsWith('Compare')")
        assert "lora.rank" in page.text()
        assert "test loss" in page.text()

        page.visit(f"{home}/finetunejobs/field-guide-v4")
        page.click("form[action$=suspend] button", "document.body.innerText.includes('It is held up.')")
        assert team.get("finetunejobs", "field-guide-v4")["spec"]["suspend"] is True
        page.click("form[action$=resume] button", "document.body.innerText.includes('It goes on.')")
        assert team.get("finetunejobs", "field-guide-v4")["spec"]["suspend"] is False

        moves = rollout("field-guide-next", moving=True)["status"]
        approval = {"digest": digest("field-guide-v3"), "required": 1, "approvedBy": []}
        awaits = condition("Ready", "False", "AwaitingApproval", "0 of 1 approvals are there")
        team.status("adapterrollouts", "field-guide-next", {"conditions": [awaits], "approval": approval})
        page.visit(f"{home}/approvals")
        page.wait("document.querySelector('.decisions li').innerText.includes('AwaitingApproval')")
        page.click(
            "form.decide button[value=Approve]", "document.body.innerText.includes('Your approval is recorded.')"
        )
        (review,) = team.server.get(f"{GROUP}/namespaces/{team.namespace}/reviews").body["items"]
        assert review["spec"]["subject"]["digest"] == approval["digest"]
        assert review["spec"]["author"] == f"system:serviceaccount:{team.namespace}:jane"
        page.click('.decisions a[href$="/field-guide-next"]', "document.title.startsWith('field-guide-next')")
        page.wait("!document.getElementById('live-mark').hidden")
        serves = condition("Ready", "True", "Serving", "every pod answers with the wanted adapter")
        team.status("adapterrollouts", "field-guide-next", {"conditions": [serves], "approval": None, "step": None})
        page.wait("document.querySelector('.phases .now').innerText === 'Serving'")
        team.status("adapterrollouts", "field-guide-next", moves)
        team.server.delete(f"{GROUP}/namespaces/{team.namespace}/reviews/{review['metadata']['name']}")

        page.visit(f"{home}/adapterrollouts/field-guide")
        page.click("td.act a", "document.title.startsWith('Go back')")
        assert "a dry run says so" in page.text()
        page.click("form[action$=back] button", "document.body.innerText.includes('was told to go back')")
        source = team.get("adapterrollouts", "field-guide")["spec"]["source"]
        assert source["artifact"]["digest"] == digest("field-guide-v2")
        assert set(source) == {"artifact"}

        page.visit(f"{home}/finetunejobs/hostile")
        assert HOSTILE in page.text()
        clean(page)
        with capsys.disabled():
            tell(page)


def test_the_form_makes_what_kubectl_would(opens: Opens, team_of_three: Team) -> None:
    with opens("jane") as page:
        answers = "base_model=s3://models/base&data=s3://datasets/rows/&output=s3://adapters/out&secret_name=&gpus=0"
        page.visit(f"/ns/{team_of_three.namespace}/new?name=made-here&{answers}")
        page.click("button[value=check]", "document.body.innerText.includes('would take it')")
        assert team_of_three.get("finetunejobs", "made-here").get("code") == 404
        page.click("button[value=make]", "document.body.innerText.includes('Made:')")
        assert team_of_three.get("finetunejobs", "made-here")["spec"]["output"] == {"uri": "s3://adapters/out"}
        page.click("button[value=make]", "document.body.innerText.includes('already exists')")
        clean(page, allowed=1)


def test_keys_search_and_colours(opens: Opens, team_of_three: Team) -> None:
    with opens("jane") as page:
        page.press("g")
        page.press("r")
        page.wait("location.pathname.endsWith('/finetunejobs') && document.body.dataset.ready === 'true'")
        page.press("/")
        page.wait("document.activeElement.id === 'text'")
        page.type("#text", "chat-tone")
        page.wait("document.querySelectorAll('#live tbody tr').length === 1")
        page.wait("location.search.includes('text=chat-tone')")
        before = page.run("getComputedStyle(document.documentElement).backgroundColor")
        for _ in range(2):  # light, then dark
            page.run("document.getElementById('theme').click()")
        assert page.run("getComputedStyle(document.documentElement).backgroundColor") != before
        page.visit(f"/ns/{team_of_three.namespace}")
        assert page.run("document.documentElement.dataset.theme") == "dark"
        clean(page)


def test_who_may_only_read_reads(opens: Opens, team_of_three: Team) -> None:
    with opens("rita") as page:
        home = f"/ns/{team_of_three.namespace}"
        assert "field-guide-v4" in page.text()
        page.visit(f"{home}/finetunejobs/support-v7")
        page.click("form[action$=suspend] button", "document.body.innerText.includes('cannot patch')")
        assert team_of_three.get("finetunejobs", "support-v7")["spec"]["suspend"] is False
        page.visit(f"{home}/adapterrollouts/field-guide-next")
        page.visit(page.run("document.querySelector('td.act a').href"))
        assert "would refuse it" in page.text()
        page.visit(f"/ns/{team_of_three.other}", "document.readyState === 'complete'")
        assert "is forbidden" in page.text()
        page.visit("/ns/-", "document.readyState === 'complete'")
        assert "is forbidden" in page.text()
        assert "field-guide" not in page.text()
        assert page.elsewhere == []


def test_who_has_no_rights_sees_and_does_nothing(opens: Opens, team_of_three: Team) -> None:
    home = f"/ns/{team_of_three.namespace}"
    parts = ("", "/finetunejobs", "/finetunejobs/field-guide-v4", "/finetunejobs/field-guide-v4/manifest",
             "/finetunejobs/field-guide-v4/log", "/compare?name=field-guide-v4", "/approvals")  # fmt: skip
    with opens("eve") as page:
        for part in parts:
            page.visit(home + part, "document.readyState === 'complete'")
            text = page.text()
            assert "cannot" in text, text
            assert "smollm2" not in text
            assert "chat-tone" not in text
        page.visit(f"{home}/new?name=mine&base_model=s3://models/b&data=s3://rows/&output=s3://out/a")
        page.click("button[value=make]", "document.body.innerText.includes('cannot create')")
        assert team_of_three.get("finetunejobs", "mine").get("code") == 404


def test_an_object_that_goes_and_one_that_comes(opens: Opens, team_of_three: Team) -> None:
    team = team_of_three
    with opens("jane") as page:
        page.visit(f"/ns/{team.namespace}/finetunejobs?text=passing-by")
        page.wait("!document.getElementById('live-mark').hidden")
        team.make(training("passing-by"))
        page.wait("document.querySelectorAll('#live tbody tr').length === 1")
        team.server.delete(f"/apis/trimtab.dev/v1alpha1/namespaces/{team.namespace}/finetunejobs/passing-by")
        page.wait("document.body.innerText.includes('Nothing is like this')")
        clean(page)


def test_a_page_that_is_not_followed_any_more_says_so(team_of_three: Team, tmp_path: Path) -> None:
    with console(team_of_three.users["jane"]) as (address, process):
        home = address.partition("/login")[0]
        with window(tmp_path, home) as page:
            page.visit(address, "location.pathname.startsWith('/ns/')")
            page.wait("!document.getElementById('live-mark').hidden")
            assert page.run("document.getElementById('stale').hidden")
            process.send_signal(signal.SIGINT)
            page.wait("!document.getElementById('stale').hidden")
            assert "This is what was here before" in page.text()
            assert "field-guide-v4" in page.text()


def clean(page: Window, allowed: int = 0) -> None:
    """Nothing was complained of, and nothing asked for elsewhere; `allowed` answers may say that a form was wrong."""
    complaints = [each for each in page.complaints if "status of 422" not in each]
    assert complaints == []
    assert len(page.complaints) <= allowed
    assert page.elsewhere == []


def tell(page: Window) -> None:
    print()
    for what, milliseconds in page.times:
        print(f"{milliseconds:6.0f} ms  {what}")
