"""The documentation as `make docs` builds it, in a browser: served by a server of files that has nothing else.

The build itself says that no link and no anchor leads nowhere; here it is what a reader's browser does with the pages.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.browser import opened

SITE = Path(__file__).parents[2] / "dist/site"
PAGES = (
    "index.html",
    "quickstart.html",
    "cli.html",
    "api.html",
    "coming-from/trl.html",
    "repository/charts/trimtab/index.html",
)
WIDTHS = (1440, 400)


class Files(SimpleHTTPRequestHandler):
    """Serves files and says nothing."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 its name in the base class
        """Say nothing."""


@pytest.fixture(scope="module")
def address() -> Iterator[str]:
    """Address of the site."""
    assert (SITE / "index.html").is_file(), "make docs builds it"
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Files, directory=str(SITE)))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("page", PAGES)
def test_a_page_asks_nobody_else_and_fits(address: str, tmp_path: Path, page: str, width: int) -> None:
    found = opened(f"{address}/{page}", tmp_path, width, dark=width == 400)
    assert found.complaints == ()
    assert [each for each in found.requests if not each.startswith(address)] == []
    assert found.width <= width, "a page is not pushed to and fro; what is wide in it is, by itself"


def test_every_page_can_be_searched_but_those_of_the_repository() -> None:
    index = json.loads((SITE / "search/search_index.json").read_text())
    found = {each["location"].partition("#")[0] for each in index["docs"]}
    assert {"quickstart.html", "coming-from/kaito.html", "api.html", "runbooks/TrimtabRolledBack.html"} <= found
    assert not [each for each in found if each.startswith("repository/")]


def test_what_is_to_be_copied_is_a_page() -> None:
    assert "FineTuneSweep" in (SITE / "repository/deploy/samples/finetunesweep.yaml.html").read_text()
