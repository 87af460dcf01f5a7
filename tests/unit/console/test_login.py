"""Who gets in: whoever has the address, once; and what of it is left behind."""

from __future__ import annotations

from starlette.testclient import TestClient
from trimtab.console.sessions import SESSIONS, Sessions


def test_the_address_opens_one_session_and_is_gone(outside: TestClient, sessions: Sessions) -> None:
    token = sessions.invitation()
    first = outside.get(f"/login?token={token}")
    assert (first.status_code, first.headers["location"]) == (303, "/")
    cookie = first.headers["set-cookie"]
    assert token not in cookie
    assert all(each in cookie for each in ("HttpOnly", "SameSite=strict", "Path=/"))
    assert outside.get("/").headers["location"] == "/ns/team-a"
    outside.cookies.clear()
    second = outside.get(f"/login?token={token}")
    assert second.status_code == 403
    assert token not in second.text
    assert outside.get("/").status_code == 403


def test_a_session_that_was_planted_before_is_not_the_one_that_is_opened(
    outside: TestClient, sessions: Sessions
) -> None:
    outside.cookies.set("trimtab-8090", "planted")
    told = outside.get(f"/login?token={sessions.invitation()}").headers["set-cookie"]
    assert "planted" not in told
    assert not sessions.knows("planted")


def test_nothing_is_told_without_a_session(outside: TestClient) -> None:
    for path in ("/ns/team-a", "/ns/team-a/finetunejobs/field-guide-v4", "/ns/team-a/changes", "/ns/team-a/new"):
        told = outside.get(path)
        assert told.status_code == 403, path
        assert "field-guide" not in told.text


def test_a_wrong_token_does_not_use_the_right_one_up(outside: TestClient, sessions: Sessions) -> None:
    token = sessions.invitation()
    assert outside.get("/login?token=wrong").status_code == 403
    assert outside.get("/login").status_code == 403
    assert outside.get(f"/login?token={token}").status_code == 303


def test_sessions_are_bounded() -> None:
    sessions = Sessions()
    names = [sessions.redeem(sessions.invitation()) for _ in range(SESSIONS + 1)]
    assert not sessions.knows(str(names[0]))
    assert sessions.knows(str(names[-1]))


def test_a_form_of_one_session_is_none_of_another() -> None:
    sessions = Sessions()
    assert sessions.form_allowed("a", sessions.form_token("a"))
    assert not sessions.form_allowed("b", sessions.form_token("a"))
    assert not sessions.form_allowed("", sessions.form_token(""))
