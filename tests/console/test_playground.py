"""Asking models side by side in Chromium, through a real API server to an engine behind its guard; and that the rows
which a person downloads are those that training reads."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from trimtab.console.preferences import PREFIX
from trimtab_trainer.data.reading.preferences import Reader

from tests.component.patience import Patience
from tests.component.serving_pod import make_pod, serving
from tests.console.conftest import Opens, Team, console
from tests.console.objects import HOSTILE, digest
from tests.console.test_day import clean
from tests.console.test_pictures import UNNAMED, show
from tests.console.window import Window, window
from tests.serving.fake_engine import BASE, FakeEngine, stream
from tests.trainer.conftest import ObjectStorage, object_storage

__all__ = ["object_storage"]

pytestmark = pytest.mark.cluster

FIRST_WORD_SECONDS = 0.05
QUESTION = "A hiker asks: may I drink from the stream below the hut?"
ADAPTER = "field-guide-next"
SERVED, NEW = (f"{ADAPTER}@{digest(f'field-guide-v{number}')[7:15]}" for number in (2, 3))
SAYS = {
    BASE: "Yes! Mountain streams are pure and safe. Enjoy the fresh taste of nature, and remember to bring a bottle.",
    SERVED: "Better not as it is.\n\nCattle graze above the hut until October. Boil the water, or filter it.",
    NEW: "Not untreated: cattle graze above the hut until October.\n\n1. Boil it for a minute (three above 2,000 m),\n"
    "2. or filter it at 0.2 µm.\n\nThe tap behind the hut is tested each spring; use that.",
}


class Speaking(FakeEngine):
    """An engine whose models say what a test wants, some of them only half of it before they may go on.

    Attributes:
        left: answers that were given up before they were whole.
    """

    def __init__(self) -> None:
        super().__init__(max_loras=4)
        self.says = dict(SAYS)
        self.held: set[str] = set()
        self.may_go_on = threading.Event()
        self.left = 0
        self.loaded |= {SERVED: "/a", NEW: "/b"}

    async def _complete(self, document: dict[str, Any], send: Any) -> None:
        self.answered.append(document["model"])
        # No model is as quick as this one: the API server's proxy breaks off an answer whose first byte comes while it
        # still looks whether the question has ended (Go's HTTP/1 server closes a body when the answer begins).
        await asyncio.sleep(FIRST_WORD_SECONDS)
        said, half = self.says[document["model"]], len(self.says[document["model"]]) // 2
        if document["model"] not in self.held:
            await stream(send, document["model"], said)
            return

        async def held(message: Any) -> None:
            nonlocal half
            half -= message["type"] == "http.response.body"
            while half < 0 and not self.may_go_on.is_set():
                await asyncio.sleep(0.01)
            await send(message)

        try:
            await stream(held, document["model"], said)
        except asyncio.CancelledError:
            self.left += 1
            raise


@pytest.fixture(scope="module")
def engine(team_of_three: Team, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Speaking]:
    made, folder = Speaking(), tmp_path_factory.mktemp("engine")
    server, namespace = team_of_three.server, team_of_three.namespace
    with serving(server, folder, made, {ADAPTER: SERVED}) as (address, port):
        make_pod(server, namespace, address, port)
        yield made
        path = f"/api/v1/namespaces/{namespace}/pods/vllm-0"
        server.request("DELETE", path, gracePeriodSeconds="0")


@pytest.fixture(autouse=True)
def as_it_was(engine: Speaking) -> Iterator[None]:
    """Whatever a test wanted of the engine, the next one finds it as it was."""
    yield
    engine.held, engine.says = set(), dict(SAYS)
    engine.may_go_on.clear()


def playground(team: Team) -> str:
    return f"/ns/{team.namespace}/playground?rollout={ADAPTER}"


def ask(page: Window, question: str = QUESTION) -> None:
    page.type("#text", question)
    page.click("#ask", "!document.getElementById('ask').disabled && !document.getElementById('said-section').hidden")


def choose(page: Window, *names: str) -> None:
    boxes = "document.querySelectorAll('input[name=model]')"
    page.run(f"{boxes}.forEach((each) => {{ each.checked = {json.dumps(names)}.includes(each.value) }})")


def titles(page: Window) -> list[str]:
    return list(page.run("[...document.querySelectorAll('.answer h3')].map((each) => each.textContent)"))


def answers(page: Window) -> list[str]:
    return list(page.run("[...document.querySelectorAll('.answer .said')].map((each) => each.textContent)"))


def downloaded(page: Window, folder: Path) -> list[dict[str, Any]]:
    folder.mkdir(parents=True, exist_ok=True)
    page.downloads(folder)
    page.click("#download", "true")
    patience = Patience("the file")
    while not (found := list(folder.glob("*.jsonl"))):
        patience.spend(len(list(folder.iterdir())))
        time.sleep(0.01)
    return [json.loads(line) for line in found[0].read_text().splitlines()]


def test_a_preference_becomes_rows_that_training_reads(
    opens: Opens, team_of_three: Team, engine: Speaking, tmp_path: Path
) -> None:
    with opens("jane") as page:
        page.visit(playground(team_of_three))
        choose(page, BASE, SERVED, NEW)
        ask(page)
        assert titles(page) == [BASE, NEW, SERVED]
        assert answers(page) == [SAYS[BASE], SAYS[NEW], SAYS[SERVED]]
        page.run("document.querySelectorAll('.better')[1].click()")
        assert "Noted: 2 rows." in page.text()
        assert "This one is better" not in page.text(), "it was said"
        rows = downloaded(page, tmp_path)
        clean(page)
    assert [set(row) for row in rows] == [{"prompt", "chosen", "rejected"}] * 2
    for row, rejected in zip(rows, (SAYS[BASE], SAYS[SERVED]), strict=True):
        pair = Reader("rows.jsonl, line 1").pair(row)
        assert pair.prompt == ({"role": "user", "content": QUESTION},)
        better, worse = ({"role": "assistant", "content": text} for text in (SAYS[NEW], rejected))
        assert pair.answers == ((better,), (worse,))


@contextlib.contextmanager
def storing(
    team: Team, storage: ObjectStorage, name: str, folder: Path, *, width: int = 1440, place: str = "preferences"
) -> Iterator[Window]:
    """Open a window as a user on a console that has keys to write preferences below one place, and is told another."""
    keys = {f"{PREFIX}{each.name}": each.read_text().strip() for each in (storage.folder / "giver").iterdir()}
    variables = {f"{PREFIX}URI": f"s3://trainer/{place}", **keys}
    with (
        console(team.users[name], **variables) as (address, _),
        window(folder / name, address.partition("/login")[0], width) as page,
    ):
        page.visit(address, "location.pathname.startsWith('/ns/')")
        yield page


def in_bucket(storage: ObjectStorage, team: Team) -> dict[str, list[dict[str, Any]]]:
    """Return the rows that are stored, by folder; objects have no order."""
    client, prefix = storage.client(), f"preferences/{team.namespace}/{ADAPTER}/"
    found: dict[str, list[dict[str, Any]]] = {}
    for each in client.list_objects_v2(Bucket="trainer", Prefix=prefix).get("Contents", []):
        data = client.get_object(Bucket="trainer", Key=each["Key"])["Body"].read()
        rows = [json.loads(line) for line in data.splitlines()]
        found.setdefault(each["Key"].removeprefix(prefix).partition("/")[0], []).extend(rows)
    return found


def test_preferences_go_into_the_bucket_and_what_is_not_stored_stays(
    team_of_three: Team, engine: Speaking, object_storage: ObjectStorage, tmp_path: Path
) -> None:
    done = "!document.getElementById('stored').hidden"
    with storing(team_of_three, object_storage, "jane", tmp_path) as page:
        page.visit(playground(team_of_three))
        choose(page, BASE, SERVED, NEW)
        ask(page)
        page.run("document.querySelectorAll('.better')[1].click()")
        page.click("#store", done)
        assert "Stored: 2 rows, the last in s3://trainer/preferences/" in page.text()
        assert page.run("document.getElementById('store').disabled && document.getElementById('forget').disabled")
        ask(page, "Another?")
        page.run("document.getElementById('neither').click()")
        assert "Noted as neither" in page.text()
        page.run("const as = document.getElementById('rows-as'); as.value = 'UnpairedPreference';"
                 "as.dispatchEvent(new Event('change'))")  # fmt: skip
        assert f"/{ADAPTER}/labels/" in page.text()
        page.click("#store", f"{done} && document.getElementById('stored').textContent.includes('labels')")
        clean(page)
    found = in_bucket(object_storage, team_of_three)
    assert [row["rejected"][0]["content"] for row in found["pairs"]] == [SAYS[BASE], SAYS[SERVED]]
    assert {row["label"] for row in found["labels"]} == {False}
    assert len([Reader("row").labelled(row) for row in found["labels"]]) == 3


def test_what_is_preferred_while_others_are_being_stored_is_stored_too(
    team_of_three: Team, engine: Speaking, object_storage: ObjectStorage, tmp_path: Path
) -> None:
    with storing(team_of_three, object_storage, "jane", tmp_path) as page:
        page.visit(playground(team_of_three))
        choose(page, BASE, SERVED)
        page.run("window.within = fetch; window.fetch = async (to, how) => {"
                 "if (String(to).endsWith('/preferences')) await new Promise((go) => { window.go = go });"
                 "return within(to, how) }")  # fmt: skip
        questions = [f"Which is the {word}?" for word in ("first", "second")]
        ask(page, questions[0])
        page.run("document.querySelectorAll('.better')[1].click()")
        page.click("#store", "!!window.go")
        page.run("document.getElementById('text').value = ''")
        ask(page, questions[1])
        page.run("document.querySelectorAll('.better')[1].click()")
        assert page.run("document.getElementById('store').disabled && document.getElementById('forget').disabled")
        page.run("const first = window.go; window.go = null; first()")
        page.wait("!!window.go")
        page.run("window.go()")
        page.wait("document.getElementById('stored').textContent.startsWith('Stored: 2 rows')")
        ask(page, "None is good?")
        page.run("document.getElementById('neither').click()")
        assert page.run("document.getElementById('store').disabled"), "it gives no pair"
        page.run("const as = document.getElementById('rows-as'); as.value = 'UnpairedPreference';"
                 "as.dispatchEvent(new Event('change'))")  # fmt: skip
        assert not page.run("document.getElementById('store').disabled"), "and labels"
        page.run("window.fetch = within")
        page.click("#store", "document.getElementById('stored').textContent.includes('labels')")
        clean(page)
    stored = [row["prompt"][0]["content"] for row in in_bucket(object_storage, team_of_three)["pairs"]]
    assert set(questions) <= set(stored)


def test_what_cannot_be_stored_is_told_and_can_be_downloaded_still(
    team_of_three: Team, engine: Speaking, object_storage: ObjectStorage, tmp_path: Path
) -> None:
    with storing(team_of_three, object_storage, "jane", tmp_path, width=400, place="elsewhere") as page:
        page.visit(playground(team_of_three))
        choose(page, BASE, SERVED)
        ask(page)
        page.run("document.querySelectorAll('.better')[1].click()")
        page.click("#store", "document.getElementById('stored').classList.contains('bad')")
        assert "Not stored: the object storage says AccessDenied" in page.text()
        assert "download the rows" in page.text()
        assert page.run("document.documentElement.scrollWidth") <= 400
        assert len(downloaded(page, tmp_path / "files")) == 1


def test_words_come_as_they_are_said_and_who_leaves_ends_them(
    opens: Opens, team_of_three: Team, engine: Speaking
) -> None:
    half = SAYS[NEW][: len(SAYS[NEW]) // 2]
    first = "document.querySelectorAll('.answer .said')[1]?.textContent"
    engine.held = {NEW}
    with opens("jane") as page:
        page.visit(playground(team_of_three))
        choose(page, BASE, NEW)
        page.type("#text", QUESTION)
        page.click("#ask", f"{first} === {json.dumps(half)}")
        assert page.run("document.getElementById('ask').disabled")
        engine.may_go_on.set()
        page.wait("!document.getElementById('ask').disabled")
        assert answers(page) == [SAYS[BASE], SAYS[NEW]]
        engine.may_go_on.clear()
        page.click("#ask", f"{first} === {json.dumps(half)}")
        page.click("#stop", "document.body.innerText.includes('Stopped')")
        patience = Patience("the engine's end")
        while not engine.left:
            patience.spend(engine.left)
            time.sleep(0.01)
        assert "This one is better" not in page.text(), "what is not whole is not compared"
        clean(page)


def test_blind_names_are_hidden_until_a_preference(opens: Opens, team_of_three: Team, engine: Speaking) -> None:
    orders: set[tuple[str, ...]] = set()
    with opens("jane") as page:
        page.visit(playground(team_of_three))
        choose(page, BASE, SERVED, NEW)
        page.run("document.getElementById('blind').click()")
        page.type("#text", QUESTION)
        patience = Patience("another order")
        while len(orders) < 2:
            patience.spend(len(orders))
            page.click("#ask", "!document.getElementById('ask').disabled")
            assert titles(page) == ["Answer 1", "Answer 2", "Answer 3"]
            said = page.run("document.getElementById('said-section').innerText")
            assert not [name for name in (BASE, SERVED, NEW) if name in said]
            orders.add(tuple(answers(page)))
        page.click(".answer .better", "document.querySelectorAll('.answer.is-better').length === 1")
        assert [SAYS[name] for name in titles(page)] == answers(page), "each answer has its own name now"
        clean(page)


def test_what_models_say_is_text_and_the_same_is_no_preference(
    opens: Opens, team_of_three: Team, engine: Speaking
) -> None:
    engine.says |= {BASE: HOSTILE, SERVED: HOSTILE}
    with opens("jane") as page:
        page.visit(playground(team_of_three))
        choose(page, BASE, SERVED)
        ask(page, HOSTILE)
        assert answers(page) == [HOSTILE, HOSTILE]
        assert page.run("document.querySelectorAll('#answers script, #answers img').length") == 0
        assert "There is nothing to prefer" in page.text()
        clean(page)


def test_who_may_not_ask_is_told_why(opens: Opens, team_of_three: Team, engine: Speaking) -> None:
    before = len(engine.answered)
    with opens("rita") as page:
        page.visit(playground(team_of_three))
        assert "asking needs the right to get and create pods/proxy" in page.text()
        assert page.run("document.getElementById('asking')") is None
        page.visit(f"/ns/{team_of_three.other}/playground", "document.readyState === 'complete'")
        assert "is forbidden" in page.text()
    assert len(engine.answered) == before


def test_it_fits_every_window(opens: Opens, team_of_three: Team, engine: Speaking, tmp_path: Path) -> None:
    folder = os.environ.get("TRIMTAB_PICTURES")
    with opens("jane") as page:
        for width in (400, 820, 1440, 1920):
            for dark in (False, True) if width in (400, 1440) else (False,):
                show(page, team_of_three, f"/playground?rollout={ADAPTER}", width, dark=dark)
                choose(page, BASE, SERVED, NEW)
                page.run("document.getElementById('blind').click()")
                ask(page)
                assert page.run("document.documentElement.scrollWidth") <= width
                assert page.run(UNNAMED) == []
                page.run("document.querySelectorAll('.better')[1].click()")
                page.picture(tmp_path / f"playground-{width}{'-dark' if dark else ''}.png")
                if folder and (width, dark) == (1440, False):
                    page.picture(Path(folder) / "console-playground.webp", most=1400)
                page.run("document.getElementById('forget').click()")  # else the browser asks before it goes
        clean(page)
