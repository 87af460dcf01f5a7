"""Reports in Chromium: what a run wrote into a real S3 storage is seen in its frame, and can do nothing from there."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from trimtab.console.storage import PREFIX
from trimtab_trainer.reporting.page import render

from tests.console.conftest import Team, console
from tests.console.objects import completed
from tests.console.test_day import clean
from tests.console.test_pictures import UNNAMED, show
from tests.console.window import Window, window
from tests.trainer.conftest import ObjectStorage, object_storage
from tests.trainer.reporting.records import record

__all__ = ["object_storage"]

pytestmark = pytest.mark.cluster

HOSTILE = """<!doctype html><title>hostile</title><meta http-equiv="refresh" content="0;url=https://evil.example.com/">
<p id="words">all of it</p><img src="https://evil.example.com/a.png">
<script>top.document.title = "taken"; fetch("/ns/-"); top.location = "https://evil.example.com/";</script>
<form action="/sign-out" method="post"><button>press</button></form><iframe src="/"></iframe>"""
FRAME = "document.querySelector('iframe.report')"


@contextlib.contextmanager
def opened(team: Team, storage: ObjectStorage | None, folder: Path) -> Iterator[Window]:
    keys = {} if storage is None else {
        f"{PREFIX}{each.name}": each.read_text().strip() for each in (storage.folder / "reader").iterdir()
    }  # fmt: skip
    with (
        console(team.users["jane"], **keys) as (address, _),
        window(folder / "browser", address.partition("/login")[0]) as page,
    ):
        page.visit(address, "location.pathname.startsWith('/ns/')")
        yield page


def reported(team: Team, storage: ObjectStorage, name: str, content: str) -> str:
    """Make a run whose report has this content, and return the address of its page."""
    uri = storage.uri("report.html")
    bucket, _, key = uri.removeprefix("s3://").partition("/")
    storage.client().put_object(Bucket=bucket, Key=key, Body=content.encode())
    body = completed(name)
    body["status"]["artifact"]["reportURI"] = uri
    team.make(body)
    return f"/ns/{team.namespace}/finetunejobs/{name}"


def test_a_report_is_read_in_its_frame(team_of_three: Team, object_storage: ObjectStorage, tmp_path: Path) -> None:
    home = reported(team_of_three, object_storage, "reported", render(record()))
    with opened(team_of_three, object_storage, tmp_path) as page:
        page.visit(home)
        page.click('a[href$="/reports/report"]', f"!!{FRAME}")
        page.wait(f"{FRAME}.contentDocument === null")  # it is of nobody's origin
        assert "Run field-guide-v3" in page.inside("/reports/report/page")
        for width in (400, 820, 1440, 1920):
            for dark in (False, True) if width in (400, 1440) else (False,):
                show(page, team_of_three, "/finetunejobs/reported/reports/report", width, dark=dark)
                assert "Run field-guide-v3" in page.inside("/reports/report/page")
                assert page.run("document.documentElement.scrollWidth") <= width
                assert page.run(UNNAMED) == []
                page.picture(tmp_path / f"report-{width}{'-dark' if dark else ''}.png")
        clean(page)


def test_a_hostile_report_does_nothing(team_of_three: Team, object_storage: ObjectStorage, tmp_path: Path) -> None:
    home = reported(team_of_three, object_storage, "hostile-report", HOSTILE)
    with opened(team_of_three, object_storage, tmp_path) as page:
        page.visit(f"{home}/reports/report")
        assert "all of it" in page.inside("/reports/report/page")
        assert page.run("document.title") == "report.html · hostile-report · Trimtab"
        assert page.run("location.pathname") == f"{home}/reports/report"
        asked = [each for each in page.elsewhere if not each.startswith("https://evil.example.com/a.png")]
        assert asked == []
        page.visit(f"{home}/reports/report/page", "document.title === 'hostile'")
        assert page.run("origin") == "null", "opened alone it is of nobody's origin either"


def test_why_a_report_does_not_open_is_seen(team_of_three: Team, object_storage: ObjectStorage, tmp_path: Path) -> None:
    body = completed("gone-report")
    body["status"]["artifact"]["reportURI"] = "s3://trainer/gone/report.html"
    team_of_three.make(body)
    with opened(team_of_three, object_storage, tmp_path) as page:
        page.visit(f"/ns/{team_of_three.namespace}/finetunejobs/gone-report/reports/report")
        assert "s3://trainer/gone/report.html is not there" in page.inside("/reports/report/page")


def test_without_keys_the_page_says_how(team_of_three: Team, object_storage: ObjectStorage, tmp_path: Path) -> None:
    home = reported(team_of_three, object_storage, "without-keys", "")
    with opened(team_of_three, None, tmp_path) as page:
        for width in (400, 1440):
            show(page, team_of_three, "/finetunejobs/without-keys/reports/report", width, dark=False)
            assert "aws s3 cp s3://trainer/" in page.text()
            assert page.run("document.documentElement.scrollWidth") <= width
            page.picture(tmp_path / f"without-{width}.png")
        page.visit(home)
        assert page.run("document.querySelector('a[href*=reports]')") is None
        clean(page)
