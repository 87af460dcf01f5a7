"""A first look at a judge behind an endpoint, before an accelerator is asked for: can what it replies be read?

Of each Judge task it is asked about one row of ours, with the task's own words. Whatever it says is right; a key, a
model, a url, a certificate or a way out that is not, and a judge of which nothing can be read, are known by it.
"""

from __future__ import annotations

from collections.abc import Sequence

from ...contract import EvaluationTask, Judging, Reason
from ...errors import SettingsInvalid
from ...interruption import Interruption
from ...report import Report
from ..rows import EvaluationRow, RowScore
from .judge import Judge
from .judgements import Judgement, questions
from .prompts import JudgePrompt

RIGHT, WRONG = "2 plus 2 is 4.", "2 plus 2 is 5."
ROW = EvaluationRow(0, "the first look", 0, None, False, prompt="What is 2 plus 2?", reference=RIGHT)


def look_at(judge: Judge, tasks: Sequence[EvaluationTask], stop: Interruption, report: Report) -> None:
    """Ask a judge what it will be asked of each task, about answers of ours. What it says is kept by nobody.

    Raises:
        Interrupted: told to stop.
        JudgeFailed: JUDGE_UNREACHABLE, JUDGE_OVERLOADED.
        SettingsInvalid: JUDGE_REFUSED, ACCESS_DENIED; JUDGE_UNREADABLE, nothing that it says of a task can be read.
    """
    prompts = {task.name: _prompts(task.judging) for task in tasks if task.judging is not None}
    once = dict.fromkeys(prompt for each in prompts.values() for prompt in each)
    heard: list[Judgement] = []
    judge.ask([Judgement(number, ROW.place, prompt) for number, prompt in enumerate(once)], heard.append, stop, report)
    read = {each.prompt for each in heard if each.said is not None}
    for name, asked in prompts.items():
        if not read.intersection(asked):
            raise SettingsInvalid(
                f"nothing that the judge says can be read: of its {len(asked)} replies to a first question of task "
                f"{name} none is one of those that it may give, such as {asked[0].options[0]} and not a word more; "
                "take a model that keeps to a response_format and does not think aloud, or ask for nothing else in "
                "judging.instructions",
                Reason.JUDGE_UNREADABLE,
            )


def _prompts(judging: Judging) -> list[JudgePrompt]:
    """Return both orders of a pair, or both answers of a rubric: a judge that errs once in a while errs once of two."""
    target, baseline = RowScore(0, text=RIGHT), RowScore(0, text=WRONG)
    return [each.prompt for each in questions(judging, [ROW], [target], [baseline])]
