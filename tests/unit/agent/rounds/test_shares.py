"""The shares of a pod: accepted in order, kept over a restart, and none in the way of another."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from trimtab_agent.contract import SHARES_KEPT, Share
from trimtab_agent.rounds.shares import Shares

from tests.unit.agent.written import DIGEST, NAME, refused, share


@pytest.fixture
def shares(tmp_path: Path) -> Shares:
    shares = Shares(tmp_path / "state", "team")
    shares.load()
    return shares


def test_only_a_higher_sequence_replaces_a_share(shares: Shares) -> None:
    assert shares.check(share())
    shares.accept(share())
    assert not shares.check(share())  # the same again
    assert refused(lambda: shares.check(share(uid="u2"))) == (409, "SequenceReused")
    assert refused(lambda: shares.check(share(sequence=[1, 4]))) == (409, "SequenceOld")
    assert refused(lambda: shares.check(share(sequence=[0, 99]))) == (409, "SequenceOld")
    assert shares.check(share(sequence=[1, 6]))
    assert shares.check(share(sequence=[2, 0]))


def test_a_retired_share_cannot_be_brought_back_by_a_replay(shares: Shares, tmp_path: Path) -> None:
    shares.accept(share())
    shares.accept(share(sequence=[1, 6], revisions=[], aliases={}, retired=True))
    assert shares.active() == ()
    again = Shares(tmp_path / "state", "team")
    again.load()
    assert refused(lambda: again.check(share())) == (409, "SequenceOld")
    assert again.check(share(sequence=[1, 7]))


def gone(name: str, number: int) -> Share:
    return share(rollout=name, sequence=[1, number], revisions=[], aliases={}, retired=True)


def test_rollouts_that_came_and_went_leave_room_for_others(tmp_path: Path) -> None:
    now = 1_767_600_000.0
    shares = Shares(tmp_path / "state", "team", lambda: now)
    shares.load()
    for number in range(SHARES_KEPT):
        shares.accept(share(rollout=f"pr-{number}", sequence=[1, 2 * number], aliases={}))
        shares.accept(gone(f"pr-{number}", 2 * number + 1))
    assert shares.active() == ()
    again = Shares(tmp_path / "state", "team", lambda: now)
    again.load()
    assert again.check(share(rollout="new", sequence=[1, 999], aliases={}))
    for number in range(SHARES_KEPT):
        again.accept(share(rollout=f"kept-{number}", sequence=[1, number], aliases={}))
    assert refused(lambda: again.check(share(rollout="one-more", aliases={}))) == (409, "TooManyShares")
    assert again.check(gone("one-more", 1000)), "what wants nothing needs no room"
    assert refused(lambda: again.check(share(rollout="pr-7", sequence=[1, 999], aliases={}))) == (409, "TooManyShares")


def test_the_marks_of_retired_rollouts_are_forgotten_when_nothing_older_can_come(tmp_path: Path) -> None:
    now = 1_767_600_000.0
    state = tmp_path / "state"
    shares = Shares(state, "team", lambda: now)
    shares.load()
    shares.accept(gone("old", 7))
    os.utime(next(state.glob("*.json")), (now, now))
    now += 1800
    shares.accept(gone("young", 9))
    assert shares.highest == (1, 9)
    assert refused(lambda: shares.check(share(rollout="old"))) == (409, "SequenceOld")
    now += 1801
    again = Shares(state, "team", lambda: now)
    again.load()
    assert (len(list(state.glob("*.json"))), again.get("old")) == (1, None)
    for number in range(2000):
        again.accept(gone(f"g-{number}", number))
    assert len(list(state.glob("*.json"))) == 1024


def test_shares_survive_a_restart_and_torn_files_do_not_stop_it(shares: Shares, tmp_path: Path) -> None:
    shares.accept(share())
    (tmp_path / "state" / "torn.json").write_text("{")
    again = Shares(tmp_path / "state", "team")
    again.load()
    assert again.active() == (share(),)
    assert set(again.revisions()) == {NAME}


def test_an_alias_of_another_share_is_refused(shares: Shares) -> None:
    shares.accept(share())
    assert refused(lambda: shares.check(share(rollout="other"))) == (409, "AliasHeld")
    assert shares.check(share(rollout="other", aliases={}))
    assert refused(lambda: shares.check(share(namespace="elsewhere"))) == (403, "NamespaceWrong")
    other = DIGEST[:-1] + "b"
    revision = {"name": NAME, "uri": "s3://a/x", "digest": other}
    assert refused(lambda: shares.check(share(rollout="o", aliases={}, revisions=[revision]))) == (409, "NameTaken")
