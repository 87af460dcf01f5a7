"""The operator's private keys: which are there, and which of them signs for whom."""

from __future__ import annotations

from pathlib import Path

import pytest
from trimtab_operator.runtime.pods.signing import READ_AGAIN_SECONDS, SigningKeys

from tests.unit.runtime.serving import new_key


def test_without_a_folder_there_is_no_key() -> None:
    keys = SigningKeys(None)
    assert keys.all() == ()
    assert keys.for_agents({"x"}) is None


def test_the_newest_key_that_all_agents_know_signs_and_the_oldest_where_they_know_none(tmp_path: Path) -> None:
    new_key(tmp_path, "key-1.pem")
    new_key(tmp_path, "key-2.pem")
    keys = SigningKeys(tmp_path)
    old, new = keys.all()
    assert keys.for_agents() == new
    assert keys.for_agents({old.id, new.id}) == new
    assert keys.for_agents({old.id, new.id}, {old.id}) == old
    assert keys.for_agents(set()) == old
    assert set(keys.public_pems()) == {f"{old.id}.pem", f"{new.id}.pem"}


def test_a_key_that_is_added_is_seen_after_a_while_and_what_is_none_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    now = 0.0
    new_key(tmp_path, "key-1.pem")
    keys = SigningKeys(tmp_path, lambda: now)
    assert len(keys.all()) == 1
    new_key(tmp_path, "key-2.pem")
    (tmp_path / "key-3.pem").write_text("no key")
    assert len(keys.all()) == 1
    now = READ_AGAIN_SECONDS
    assert len(keys.all()) == 2
    assert "signing key not readable" in caplog.text
