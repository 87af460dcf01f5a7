"""Signing in and out in Chromium, at a real provider on another site: what browsers make of cookies and redirects."""

from __future__ import annotations

from pathlib import Path

import pytest
from trimtab_local import Cluster

from tests.component.conftest import INSTANCE
from tests.component.console.provider import CLIENT, PASSWORD, SECRET, USERS, may, provider, taken_by
from tests.component.console.test_console import in_cluster
from tests.component.serving_pod import own_address
from tests.console.conftest import Team
from tests.console.test_pictures import UNNAMED
from tests.console.window import Window, window
from tests.ports import free_port

pytestmark = pytest.mark.cluster


def fill_in(page: Window) -> None:
    page.wait("!!document.getElementById('username')")
    page.type("#username", "jane")
    page.type("#password", PASSWORD)
    page.run("document.querySelector('button').click()")


def test_in_and_out(team_of_three: Team, tmp_path: Path) -> None:
    server, own = team_of_three.server, free_port()
    host = own_address(server)
    may(server, team_of_three.namespace, USERS["jane"])
    back = f"http://127.0.0.1:{own}/callback"
    with provider(tmp_path, host, free_port(host), back) as there:
        options = ("--oidc-issuer", there.issuer, "--oidc-client-id", CLIENT,
                   "--oidc-certificate-authority", str(there.authority))  # fmt: skip
        variables = {"TRIMTAB_CONSOLE_OIDC_CLIENT_SECRET": SECRET}
        folder = Cluster(name=INSTANCE, control_plane=True).instance.folder
        with (
            taken_by(server, folder, there),
            in_cluster(team_of_three.users["jane"], tmp_path, *options, port=own, **variables) as (home, _),
            window(tmp_path / "browser", home) as page,
        ):
            page.trust_everybody()
            path = f"/ns/{team_of_three.namespace}/finetunejobs"
            page.visit(path, "true")
            assert page.run("location.origin") == there.issuer
            fill_in(page)
            page.wait(f"location.pathname === '{path}' && document.body.dataset.ready === 'true'")
            assert "field-guide-v4" in page.text()
            page.wait("!document.getElementById('live-mark').hidden")
            assert {each["name"]: (each["httpOnly"], each["sameSite"]) for each in page.cookies()} == {
                "trimtab": (True, "Lax")
            }
            for width in (400, 1440):
                for dark in (False, True):
                    page.size(width, dark=dark)
                    page.visit(path)
                    assert page.run("document.documentElement.scrollWidth") <= width
                    assert page.run(UNNAMED) == []
                    page.picture(tmp_path / f"signed-in-{width}{'-dark' if dark else ''}.png")
            page.click("form[action='/sign-out'] button", "document.title.startsWith('Signed out')")
            assert page.cookies() == []
            for width in (400, 1440):
                for dark in (False, True):
                    page.size(width, dark=dark)
                    page.visit("/signed-out", "true")
                    assert page.run("document.documentElement.scrollWidth") <= width
                    page.picture(tmp_path / f"signed-out-{width}{'-dark' if dark else ''}.png")
            page.visit(path, "true")
            assert page.run("location.origin") == there.issuer, "and somebody has to say who they are again"
            assert [each for each in page.complaints if "Content Security Policy" in each] == []
