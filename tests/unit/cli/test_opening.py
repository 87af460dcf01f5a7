"""`kubectl trimtab ui --open`: what is given to the browser."""

from __future__ import annotations

import stat
import webbrowser
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest
from trimtab.console import serving

from tests.unit.cli.cluster import FakeCluster
from tests.unit.cli.conftest import Run

ADDRESS = "http://127.0.0.1:4711/?token=a-secret&next=<b>"


@pytest.fixture
def opened(cluster: FakeCluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[tuple[str, str, int]]:
    """What a browser was given: the address, what it finds there, and who may read that."""
    seen: list[tuple[str, str, int]] = []

    def browse(address: str) -> bool:
        page = Path(unquote(urlparse(address).path))
        seen.append((address, page.read_text(), stat.S_IMODE(page.parent.stat().st_mode)))
        return True

    monkeypatch.setattr(Path, "home", lambda: tmp_path)
    monkeypatch.setattr(webbrowser, "open", browse)
    monkeypatch.setattr(serving, "serve_loopback", lambda server, namespace, port, ready: ready(ADDRESS))
    return seen


def test_a_browser_is_not_given_the_token_where_all_users_of_the_machine_see_it(
    run: Run, opened: list[tuple[str, str, int]]
) -> None:
    ran = run("ui", "--open")
    assert ran.out == f"{ADDRESS}\n"
    ((address, page, mode),) = opened
    assert address.startswith("file:///")
    assert "a-secret" not in address
    assert 'url=http://127.0.0.1:4711/?token=a-secret&amp;next=&lt;b&gt;"' in page
    assert mode == 0o700
    assert not Path(urlparse(address).path).exists()


def test_without_the_option_no_browser_is_opened(run: Run, opened: list[tuple[str, str, int]]) -> None:
    ran = run("ui")
    assert (ran.out, ran.code) == (f"{ADDRESS}\n", 0), ran.err
    assert opened == []
