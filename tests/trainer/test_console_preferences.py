"""Preferences from the console's page into a real S3 server, with keys that may write there and nothing else; and that
training reads what lies there."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from starlette.testclient import TestClient
from trimtab.bucket import Bucket, Keys
from trimtab.console import preferences as preferences_module
from trimtab.console.app import Console
from trimtab.console.callers import OfKubeconfig
from trimtab.console.context import ACCESS_REVIEWS, Context
from trimtab.console.feeds import Feeds
from trimtab.console.preferences import PREFIX, ROWS, TEXT_LENGTH, Preferences, rows_of
from trimtab.console.sessions import Sessions
from trimtab.errors import Invalid, NotAllowed
from trimtab.kubeconfig import connection_to
from trimtab.server import Server
from trimtab_trainer.data.reading.preferences import Reader

from tests.trainer.conftest import ObjectStorage
from tests.unit.cli.cluster import NAMESPACE, Request
from tests.unit.console.conftest import HOME, ORIGIN, WHO, WatchedCluster, cluster
from tests.unit.console.test_playground import HOSTILE, PAGE, engine

__all__ = ["cluster", "engine"]

WHERE = "/ns/team-a/adapterrollouts/field-guide/preferences"
PLACE = "preferences/feedback/team-a/field-guide"


def turn(role: str, content: str) -> list[dict[str, str]]:
    return [{"role": role, "content": content}]


PAIR: dict[str, Any] = {
    "prompt": turn("user", "Who are you?"), "chosen": turn("assistant", "A guide."), "rejected": turn("assistant", "I"),
}  # fmt: skip
LABELLED = {"prompt": "Once", "completion": HOSTILE, "label": False}


def variables(storage: ObjectStorage, identity: str = "giver") -> dict[str, str]:
    keys = {f"{PREFIX}{each.name}": each.read_text() for each in (storage.folder / identity).iterdir()}
    return {f"{PREFIX}URI": "s3://trainer/preferences/feedback/", **keys}


class Page:
    """A browser on a console, with what its person may do."""

    def __init__(self, cluster: WatchedCluster, preferences: Preferences | None, feeds: Feeds) -> None:
        self.sessions, self.allowed = Sessions(), True
        self.asked: list[Any] = []
        server = Server(connection_to(cluster.address, {"token": "a"}))
        callers = OfKubeconfig(server, NAMESPACE, self.sessions, "c")
        context = Context(callers, feeds, self.sessions, "", False, None, preferences)
        self.browser = TestClient(Console(context, ["127.0.0.1:8090"]).app, base_url=HOME, follow_redirects=False)
        assert self.browser.get(f"/login?token={self.sessions.invitation()}").status_code == 303
        well = cluster.otherwise

        def answer(request: Request) -> Any:
            if request.path == ACCESS_REVIEWS.path():
                self.asked.append(request.body["spec"]["resourceAttributes"])
                return 201, {"status": {"allowed": self.allowed}}
            return well(request) if well is not None else None

        cluster.otherwise = answer

    def give(self, *rows: Any, as_: str = "Preference", where: str = WHERE, **changes: str) -> Any:
        token = self.sessions.form_token(self.browser.cookies["c"])
        written = "\n".join(each if isinstance(each, str) else json.dumps(each) for each in rows)
        form = {"form_token": token, "format": as_, "rows": written, **changes}
        return self.browser.post(where, data=form, headers=ORIGIN)


Opens = Callable[..., Page]


@pytest.fixture
def opens(cluster: WatchedCluster, object_storage: ObjectStorage) -> Iterator[Opens]:
    feeds = Feeds()

    def opened(told: dict[str, str] | Preferences | None = None) -> Page:
        if isinstance(told, Preferences):
            return Page(cluster, told, feeds)
        return Page(cluster, Preferences.of(variables(object_storage) if told is None else told), feeds)

    yield opened
    feeds.close()


def stored(storage: ObjectStorage, uri: str) -> tuple[list[Any], dict[str, str]]:
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    found = storage.client().get_object(Bucket=bucket, Key=key)
    return [json.loads(line) for line in found["Body"].read().decode().splitlines()], found["Metadata"]


def test_rows_are_stored_once_as_training_reads_them_and_with_a_name(
    opens: Opens, object_storage: ObjectStorage
) -> None:
    page = opens()
    answer = page.give(PAIR, {**PAIR, "rejected": turn("assistant", HOSTILE)})
    assert (answer.status_code, answer.json()["rows"]) == (200, 2)
    uri = answer.json()["uri"]
    assert uri.startswith(f"s3://trainer/{PLACE}/pairs/")
    rows, metadata = stored(object_storage, uri)
    assert rows == [PAIR, {**PAIR, "rejected": turn("assistant", HOSTILE)}]
    assert metadata == {"author": "jane"}
    assert Reader("row").pair(rows[1]).answers == (
        ({"role": "assistant", "content": "A guide."},),
        ({"role": "assistant", "content": HOSTILE},),
    )
    assert page.give(*rows).json()["uri"] == uri, "what is sent twice is there once"
    assert page.asked == [
        {"group": "trimtab.dev", "resource": "adapterrollouts", "subresource": "preferences", "verb": "create",
         "namespace": "team-a", "name": "field-guide"}
    ]  # fmt: skip


def test_labels_go_where_no_pairs_are(opens: Opens, object_storage: ObjectStorage) -> None:
    answer = opens().give(LABELLED, as_="UnpairedPreference")
    assert answer.json()["uri"].startswith(f"s3://trainer/{PLACE}/labels/")
    (row,), _ = stored(object_storage, answer.json()["uri"])
    assert Reader("row").labelled(row)[1] is False


def test_the_page_says_where_rows_go_and_who_may_give_none_is_told(
    opens: Opens, cluster: WatchedCluster, engine: list[Any], object_storage: ObjectStorage
) -> None:
    page = opens()
    told = page.browser.get(PAGE).text
    assert f'data-action="{WHERE}"' in told
    assert f"s3://trainer/{PLACE}/pairs/" in told
    without = opens({})
    assert "data-action" not in without.browser.get(PAGE).text
    assert without.give(PAIR).status_code == 404
    other = opens()
    other.allowed = False
    told = other.browser.get(PAGE).text
    assert "data-action" not in told
    assert "and you may not" in told
    answer = other.give(PAIR)
    assert (answer.status_code, answer.json()["sentence"]) == (403, "you may not give preferences about field-guide")
    assert "s3://" not in answer.text


@pytest.mark.parametrize(
    ("rows", "as_", "sentence"),
    [
        ([], "Preference", "there are 0 rows"),
        ([PAIR] * (ROWS + 1), "Preference", f"there are {ROWS + 1} rows"),
        ([PAIR], "Messages", "rows have no format 'Messages'"),
        (["{"], "Preference", "row 1 is no JSON"),
        (["[" * 90_000], "Preference", "row 1 is no JSON"),
        (["5"], "Preference", "row 1 is none of {chosen, prompt, rejected}"),
        ([PAIR, {**PAIR, "weight": 9}], "Preference", "row 2 is none of {chosen, prompt, rejected}"),
        ([LABELLED], "Preference", "row 1 is none of"),
        ([{**LABELLED, "label": "yes"}], "UnpairedPreference", "neither true nor false"),
        ([{**PAIR, "prompt": ""}], "Preference", "row 1, prompt is no text of 1 to"),
        ([{**PAIR, "chosen": turn("assistant", "a" * (TEXT_LENGTH + 1))}], "Preference", "row 1, chosen is no text of"),
        ([{**PAIR, "chosen": turn("system", "a")}], "Preference", "row 1, chosen is not the assistant's turn"),
        (
            [{**PAIR, "chosen": [*turn("assistant", "a"), *turn("user", "b")]}],
            "Preference",
            "neither a text nor one turn",
        ),
        (
            [{**PAIR, "chosen": [{"role": "assistant", "content": "a", "weight": 0}]}],
            "Preference",
            "neither a text nor",
        ),
        ([{**PAIR, "chosen": "a"}], "Preference", "half a text and half a conversation"),
        (['{"prompt": "\\ud800", "chosen": "a", "rejected": "b"}'], "Preference", "no JSON of whole characters"),
        ([{**PAIR, "chosen": turn("assistant", "a\ufdd0b")}], "Preference", "row 1, chosen has U+FDD0, which"),
        ([{**PAIR, "prompt": {"role": []}}], "Preference", "neither a text nor one turn"),
        ([{**PAIR, "prompt": [{"role": {}, "content": "a"}]}], "Preference", "is not the user's turn"),
    ],
    ids=lambda told: str(told)[:30],
)
def test_what_is_no_row_is_refused_before_anything_is_written(
    rows: list[Any], as_: str, sentence: str, opens: Opens
) -> None:
    answer = opens().give(*rows, as_=as_)
    assert answer.status_code == 422, answer.text
    assert sentence in answer.json()["sentence"]


def test_every_sign_that_can_be_stored_is_one_that_training_reads() -> None:
    kept = 0
    for sign in map(chr, (*range(0x3000), *range(0xD7F0, 0xE010), *range(0xFD00, 0x10000), *range(0x10FFF0, 0x110000))):
        row = json.dumps({**LABELLED, "completion": f"a{sign}"})
        try:
            (written,) = rows_of(row, "UnpairedPreference")
        except Invalid:  # the console keeps no such row
            continue
        Reader("row").labelled(json.loads(written))
        kept += 1
    assert kept > 12_000


def test_the_bound_is_of_a_person_in_all_their_browsers_and_who_is_nobody_gives_nothing(
    opens: Opens, cluster: WatchedCluster, object_storage: ObjectStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(preferences_module, "A_MINUTE", 2)
    shared = Preferences.of(variables(object_storage))
    first, second = opens(shared), opens(shared)
    assert [page.give(PAIR).status_code for page in (first, second, first)] == [200, 200, 503]
    cluster.refuse(WHO, 404, "the server could not find the requested resource")
    answer = opens(shared).give(PAIR)
    assert (answer.status_code, answer.json()["sentence"]) == (404, "the API server does not say who you are")


def test_forms_of_others_and_too_many_are_refused(opens: Opens, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(preferences_module, "A_MINUTE", 2)
    page = opens()
    assert page.give(PAIR, form_token="0" * 64).status_code == 403
    assert page.browser.post(WHERE, data={"rows": "{}"}).status_code == 403, "without an origin"
    assert page.give(PAIR, where=WHERE.replace("adapterrollouts", "finetunejobs")).status_code == 404
    assert page.give("a" * 1_000_001).status_code == 422
    assert [page.give(PAIR).status_code for _ in range(3)] == [200, 200, 503]
    page.browser.cookies.clear()
    told = page.browser.post(WHERE, data={"form_token": "a", "rows": "{}"}, headers=ORIGIN)
    assert (told.status_code, told.headers["content-type"]) == (403, "application/json")


def test_its_keys_write_below_one_prefix_and_read_nothing(opens: Opens, object_storage: ObjectStorage) -> None:
    told = variables(object_storage) | {f"{PREFIX}URI": "s3://trainer/elsewhere"}
    answer = opens(told).give(PAIR)
    assert answer.status_code == 403
    assert "AccessDenied" in answer.json()["sentence"]
    assert answer.json()["next_step"].startswith("download the rows")
    uri = opens().give(PAIR).json()["uri"]
    keys = Keys.of(variables(object_storage), PREFIX)
    assert keys is not None
    with pytest.raises(NotAllowed):
        Bucket("trainer", keys.client()).read(uri.removeprefix("s3://trainer/"))


def test_half_a_configuration_is_refused() -> None:
    assert Preferences.of({}) is None
    keys = {f"{PREFIX}AWS_ACCESS_KEY_ID": "a", f"{PREFIX}AWS_SECRET_ACCESS_KEY": "b"}
    with pytest.raises(Invalid, match=f"{PREFIX}URI is missing"):
        Preferences.of(keys)
    with pytest.raises(Invalid, match=f"{PREFIX}AWS_ACCESS_KEY_ID is missing"):
        Preferences.of({f"{PREFIX}URI": "s3://a/b"})
    with pytest.raises(Invalid, match="is not in a bucket"):
        Preferences.of({**keys, f"{PREFIX}URI": "file:///a"})
