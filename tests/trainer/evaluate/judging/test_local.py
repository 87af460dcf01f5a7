"""A judge in this process: the reply that is the most likely to it, or none."""

from __future__ import annotations

from pathlib import Path

from trimtab_trainer.contract import Judging, StoredJudgeModel
from trimtab_trainer.evaluate.judging.judgements import Judgement, judged, questions, unreliable
from trimtab_trainer.evaluate.judging.local import LocalJudge, most_likely
from trimtab_trainer.evaluate.judging.store import judgements_digest

from tests.trainer.evaluate.scored import text_rows, text_scores

DIGEST = "sha256:" + "1" * 64


def test_the_most_likely_reply_is_given() -> None:
    assert most_likely(("a", "b", "c"), (-3.0, -1.0, -2.0)) == "b"


def test_replies_from_when_ties_went_to_the_lowest_are_not_taken(tmp_path: Path) -> None:
    """They are stored under the digest of the judge and the questions, which are the same as before."""
    judge = LocalJudge(StoredJudgeModel.model_validate({"uri": "s3://models/judge", "digest": DIGEST}), tmp_path, None)
    before = {"digest": DIGEST, "computeType": judge.identity["computeType"]}
    assert judgements_digest(judge.identity, []) != judgements_digest(before, [])


def test_a_judge_to_which_all_replies_are_as_likely_decides_nothing() -> None:
    """Else both sides had the lowest score in every row, and nothing would be worse than the baseline."""
    judging = Judging.model_validate({"mode": "Rubric", "instructions": "How good is it?"})
    rows, target, baseline = text_rows(["x"] * 30), text_scores(["no"] * 30), text_scores(["yes"] * 30)
    replies = [
        Judgement(each.number, each.slot, each.prompt, most_likely(each.prompt.options, [-2.5] * 5))
        for each in questions(judging, rows, target, baseline)
    ]
    found = judged(judging, rows, target, baseline, replies)
    assert found.unreadable == found.asked == 60
    assert unreliable(judging, found) is not None
