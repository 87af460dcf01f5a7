"""approve, reject and comment: what is written, about which adapter, by whom; and what is refused before."""

from __future__ import annotations

import re

import pytest
from trimtab.client import Client
from trimtab.errors import Invalid

from tests.unit.cli.cluster import GROUP, NAMESPACE, SERVED, WAITS, FakeCluster, finetunejob
from tests.unit.cli.conftest import Run

COMING = WAITS["status"]["approval"]["digest"]
NOW = WAITS["status"]["served"]["digest"]
OTHER = "sha256:" + "9" * 64
REVIEWS = f"{GROUP}/namespaces/{NAMESPACE}/reviews"


@pytest.fixture
def waiting(cluster: FakeCluster) -> FakeCluster:
    cluster.put(WAITS)
    return cluster


def written(cluster: FakeCluster) -> list[dict[str, object]]:
    return [body["spec"] for path, body in cluster.objects.items() if path.startswith(f"{REVIEWS}/")]


def test_an_approval_is_of_what_waits_by_who_asks_in_the_name_of_the_groups_that_are_asked(
    waiting: FakeCluster, run: Run
) -> None:
    ran = run("approve", "guide", "-m", "reads well")
    assert (ran.code, ran.err) == (0, "")
    assert ran.out == f"review/guide-approve-x7k2p: alice approves {COMING} of adapterrollout/guide\n"
    assert written(waiting) == [
        {
            "subject": {"kind": "AdapterRollout", "name": "guide", "digest": COMING},
            "decision": "Approve",
            "message": "reads well",
            "author": "alice",
            "authorGroups": ["leads"],
        }
    ]


def test_a_rejection_and_a_comment_are_no_approvals(waiting: FakeCluster, run: Run) -> None:
    assert "alice rejects" in run("reject", "adapterrollout/guide").out
    assert "alice comments on" in run("comment", "guide", "-m", "who asked for this?").out
    assert [each["decision"] for each in written(waiting)] == ["Reject", "Comment"]


def test_who_approves_in_the_second_of_their_own_rejection_approves_again_in_the_next(
    waiting: FakeCluster, run: Run
) -> None:
    """Of one second the rejection stands: the API server's times have no fractions."""
    run("reject", "guide", "-m", "it swears")
    assert "alice approves" in run("approve", "guide", "-m", "it does not").out
    assert [each["decision"] for each in written(waiting)] == ["Reject", "Approve", "Approve"]
    run("approve", "guide", "--digest", OTHER)
    assert [each["decision"] for each in written(waiting)][3:] == ["Approve"]


def test_a_dry_run_stores_nothing(waiting: FakeCluster, run: Run) -> None:
    assert "(dry run, nothing was stored)" in run("approve", "guide", "--dry-run").out
    assert written(waiting) == []
    assert waiting.asked[-1].query["dryRun"] == "All"


@pytest.mark.parametrize("digits", [NOW, NOW[7:19], NOW[:17]])
def test_a_digest_may_be_its_first_digits_and_another_than_the_one_that_waits_is_told(
    waiting: FakeCluster, run: Run, digits: str
) -> None:
    ran = run("reject", "guide", "--digest", digits)
    assert NOW in ran.out
    assert f"waits for {COMING}, which this is not about" in ran.err


def test_a_whole_digest_need_not_be_known(waiting: FakeCluster, run: Run) -> None:
    assert OTHER in run("approve", "guide", "--digest", OTHER).out


@pytest.mark.parametrize("given", ["573", "99999999", "sha256:xyz", ""])
def test_what_is_no_digest_is_refused(waiting: FakeCluster, run: Run, given: str) -> None:
    ran = run("approve", "guide", "--digest", given)
    assert ran.code == 1
    assert "is no digest: write sha256: and 64 digits" in ran.err
    assert written(waiting) == []


def test_who_is_in_none_of_the_groups_is_told_before(waiting: FakeCluster, run: Run) -> None:
    waiting.groups = ("interns",)
    ran = run("approve", "guide")
    assert (ran.code, ran.out) == (1, "")
    assert "alice is in none of the groups leads" in ran.err
    assert run("comment", "guide", "-m", "looks fine").code == 0


def test_nothing_waits(cluster: FakeCluster, run: Run) -> None:
    cluster.put(SERVED)
    ran = run("approve", "served")
    assert ran.code == 1
    assert "adapterrollout/served: no adapter of it waits: say which one with --digest" in ran.err


def test_of_a_rollout_that_asks_nobody_it_is_said_that_nothing_follows(cluster: FakeCluster, run: Run) -> None:
    cluster.put(SERVED)
    ran = run("approve", "served", "--digest", OTHER)
    assert (ran.code, len(written(cluster))) == (0, 1)
    assert "served asks for no approvals (spec.strategy.approvals): nothing follows from this" in ran.err
    assert run("comment", "served", "--digest", OTHER, "-m", "well").err == ""


def test_a_job_has_an_adapter_once_it_is_published(cluster: FakeCluster) -> None:
    with Client() as client:
        with pytest.raises(Invalid, match="it has no adapter yet"):
            client.comment("finetunejob/demo", "well")
        cluster.put(finetunejob("done", artifact={"digest": OTHER}))
        decided = client.comment("done", "well")
    assert decided.digest == OTHER
    assert decided.review.spec["subject"] == {"kind": "FineTuneJob", "name": "done", "digest": OTHER}


def test_a_comment_needs_words(waiting: FakeCluster, run: Run) -> None:
    assert "a comment needs words" in run("comment", "guide").err
    assert "a comment needs words" in run("comment", "guide", "-m", "  ").err
    with Client() as client, pytest.raises(Invalid, match="needs words"):
        client.comment("guide", "")


def test_a_message_has_an_end(waiting: FakeCluster, run: Run) -> None:
    assert "the message has 1,025 characters: write at most 1,024" in run("approve", "guide", "-m", "a" * 1025).err
    assert written(waiting) == []


@pytest.mark.parametrize("name", [f"{'a' * 39}.b", f"{'a' * 39}-b", f"{'a' * 38}.-b"])
def test_a_long_name_makes_the_name_of_a_review(cluster: FakeCluster, name: str) -> None:
    cluster.put({**WAITS, "metadata": {"name": name}})
    with Client() as client:
        made = client.approve(name).review.name
    assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*", made)


def test_a_review_cannot_be_decided_about_nor_held_up(waiting: FakeCluster, run: Run) -> None:
    run("approve", "guide")
    assert "a Review has no adapter to decide about" in run("approve", "review/guide-approve-x7k2p").err
    assert "there is nothing to suspend" in run("suspend", "rev/guide-approve-x7k2p").err


def test_what_waits_and_what_was_decided_is_told(waiting: FakeCluster, run: Run) -> None:
    story = run("describe", "guide").out
    assert "Approval  1 of 2 approvals (bob), waited for since 2d" in story
    assert COMING in story
    run("approve", "guide", "-m", "reads well")
    told = run("describe", "review/guide-approve-x7k2p").out
    assert "Approve by alice" in told
    assert f"AdapterRollout guide, {COMING}" in told
    assert "reads well" in told
    lines = run("list", "rev").out.splitlines()
    assert lines[0].split() == ["NAME", "SUBJECT", "DECISION", "AUTHOR", "AGE"]
    assert lines[1].split()[:4] == ["guide-approve-x7k2p", "guide", "Approve", "alice"]


def test_a_hostile_name_is_written_out(waiting: FakeCluster, run: Run) -> None:
    waiting.user = "eve\x1b[2J"
    ran = run("approve", "guide")
    assert ran.code == 0
    assert "\x1b" not in ran.out
