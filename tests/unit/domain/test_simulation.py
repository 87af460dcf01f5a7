"""Random lives, with an operator that dies between any two writes: what must hold in all of them."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from trimtab_operator.api import FineTuneJob
from trimtab_operator.domain.plan import NodeOf
from trimtab_operator.domain.work import plan
from trimtab_trainer.contract import ExitCode, Reason, Summary

from tests.unit.domain.makers import (
    ARTIFACT,
    OUTCOME,
    PREPARED,
    PREPARED_EVALUATION,
    EvaluationWorld,
    World,
    adapterrollout,
    finetunejob,
    finished,
    queued_world,
)

UNFINISHED, FINISHED = finetunejob(), finished()

REASONS = {
    ExitCode.SETTINGS_INVALID: Reason.BUCKET_NOT_FOUND,
    ExitCode.DATA_INVALID: Reason.DATASET_MALFORMED,
    ExitCode.OUT_OF_MEMORY: Reason.OUT_OF_MEMORY,
    ExitCode.STORAGE_FAILED: Reason.STORAGE_FAILED,
    ExitCode.INTERRUPTED: Reason.INTERRUPTED,
    ExitCode.BUG: Reason.BUG,
}


class Life(RuleBasedStateMachine):
    """Events of the cluster and of the user, in any order, between rounds of an operator that may die in them."""

    queued = False

    def __init__(self) -> None:
        super().__init__()
        self.world = self.make(retries={"onFailure": 2, "onDisruption": 3}, activeDeadlineSeconds=100_000)
        self.verdict: tuple[str, str] | None = None
        self.charged = (0, 0)

    def make(self, **spec: Any) -> World:
        return queued_world(**spec) if self.queued else World(**spec)

    def findings(self) -> dict[str, Any]:
        """What the last words of a stage that succeeded hold."""
        if self.world.current.stage == "prepare":
            return {"prepared": PREPARED}
        return {"artifact": ARTIFACT, "summary": Summary(step=100)}

    def live(self) -> bool:
        return bool(self.world.jobs) and not self.world.current.finished

    def runs(self) -> bool:
        return self.live() and any(pod.job_uid == self.world.current.uid and pod.running for pod in self.world.pods)

    @rule(writes=st.integers(1, 6))
    def operate_and_die(self, writes: int) -> None:
        """A round that ends after a number of writes, then another operator."""
        world = self.world
        for _ in range(20):
            made = plan(world.observed(), world.now)
            if made.inquiries:
                world.answers |= {inquiry: world.answers.get(inquiry, ()) for inquiry in made.inquiries}
                continue
            for action in made.actions:
                if writes == 0:
                    return
                world.act(action)
                writes -= 1
            if made.actions and made.status is None:
                continue
            if writes == 0:
                return
            before = world.writes
            world.write(made)
            if world.writes == before:
                return
            writes -= 1

    @rule(seconds=st.integers(1, 400))
    def wait(self, seconds: int) -> None:
        self.world.after(seconds)

    @precondition(lambda self: self.live() and not self.runs() and not self.world.current.suspended)
    @rule()
    def the_pod_runs(self) -> None:
        self.world.pods = [pod for pod in self.world.pods if pod.job_uid != self.world.current.uid]
        now = self.world.now
        self.world.pod(phase="Running", scheduled_time=now, started=now, running=True, node="n").change_job(active=1)

    @precondition(lambda self: self.queued and self.live())
    @rule(suspended=st.booleans())
    def the_queue_decides(self, suspended: bool) -> None:
        self.world.change_job(suspended=suspended)
        if suspended:
            self.world.pods = [pod for pod in self.world.pods if pod.job_uid != self.world.current.uid]

    @precondition(lambda self: self.runs())
    @rule(words=st.booleans())
    def it_succeeds(self, words: bool) -> None:
        world = self.world
        said = world.words(Reason.COMPLETED, **self.findings())
        world.pod(phase="Succeeded", running=False, terminated=True, exit_code=0, last_words=said if words else None)
        world.change_job(complete=True, active=0, ended=world.now)

    @precondition(lambda self: self.runs())
    @rule(code=st.sampled_from(sorted(REASONS)), pod_left=st.booleans())
    def it_exits(self, code: ExitCode, pod_left: bool) -> None:
        world = self.world
        index = {14: 1, 10: 2, 11: 2, 12: 3, 13: 4}.get(int(code))
        said = world.words(REASONS[code], "because")
        world.pod(phase="Failed", running=False, terminated=True, exit_code=int(code), last_words=said)
        if not pod_left:
            world.pods = [pod for pod in world.pods if pod.job_uid != world.current.uid]
        text = f"Container trainer for pod a/b failed with exit code {int(code)} matching FailJob rule at index {index}"
        world.change_job(failed=True, active=0, ended=world.now, failed_message=text if index else "")

    @precondition(lambda self: self.live())
    @rule()
    def somebody_deletes_the_job(self) -> None:
        gone = self.world.jobs.pop()
        self.world.pods = [pod for pod in self.world.pods if pod.job_uid != gone.uid]

    @precondition(lambda self: self.runs())
    @rule()
    def the_node_dies(self) -> None:
        self.world.answers[NodeOf("n")] = "NotReady"
        self.world.pod(deletion_time=self.world.now + timedelta(seconds=30))

    @rule(suspend=st.booleans())
    def somebody_suspends(self, suspend: bool) -> None:
        self.world.patch_spec(suspend=suspend)

    @precondition(lambda self: self.live())
    @rule()
    def a_suspended_job_loses_its_pod(self) -> None:
        if self.world.current.suspended:
            self.world.pods = [pod for pod in self.world.pods if pod.job_uid != self.world.current.uid]
            self.world.change_job(active=0)

    @invariant()
    def one_job_runs_at_most(self) -> None:
        unfinished = [job for job in self.world.jobs if not job.finished]
        assert len(unfinished) <= 1, unfinished

    @invariant()
    def terminal_is_terminal(self) -> None:
        conditions = self.world.job.status.conditions
        verdict = (conditions[0].status, conditions[0].reason) if conditions else None
        if self.verdict is not None:
            assert verdict == self.verdict
        elif verdict is not None and verdict[0] != "Unknown":
            self.verdict = verdict

    @invariant()
    def charges_only_grow_and_match_the_attempts(self) -> None:
        status = self.world.job.status
        charged = (status.failures, status.disruptions)
        assert charged >= self.charged or (charged[0] >= self.charged[0] and charged[1] >= self.charged[1])
        self.charged = charged
        if status.attempts and status.attempts[0].number == 0:
            paid = [attempt.charged_to for attempt in status.attempts]
            assert charged == (paid.count("failures"), paid.count("disruptions"))

    @invariant()
    def attempts_are_counted_without_gaps(self) -> None:
        numbers = [attempt.number for attempt in self.world.job.status.attempts]
        assert numbers == list(range(numbers[0], numbers[0] + len(numbers))) if numbers else True

    def teardown(self) -> None:
        """Whatever happened: left alone, it ends."""
        world = self.world.patch_spec(suspend=False)
        for _ in range(60):
            world.settle()
            if world.succeeded != "Unknown":
                break
            if self.live() and self.queued:
                world.change_job(suspended=False)
            if self.live() and not world.current.suspended:
                self.the_pod_runs() if not self.runs() else self.it_succeeds(words=True)
            world.after(60)
        assert world.succeeded != "Unknown", world.state
        assert all(job.finished for job in world.jobs)
        assert replace(world.observed()).job.status.completion_time


class EvaluationLife(Life):
    """The FineTuneJob may come, finish and go at any time; what was taken from it once never changes."""

    def __init__(self) -> None:
        super().__init__()
        self.resolved: object = None

    def make(self, **spec: Any) -> World:
        return EvaluationWorld(**spec)

    def findings(self) -> dict[str, Any]:
        if self.world.current.stage == "prepare":
            return {"prepared_evaluation": PREPARED_EVALUATION}
        return {"packed_outcome": OUTCOME.pack(3072)}

    @rule(there=st.sampled_from((None, UNFINISHED, FINISHED)))
    def the_finetunejob_changes(self, there: FineTuneJob | None) -> None:
        self.world.upstream = there

    @invariant()
    def what_was_resolved_stays(self) -> None:
        now = self.world.job.status.resolved
        if self.resolved is not None:
            assert now == self.resolved
        self.resolved = now

    @invariant()
    def it_passes_only_with_a_result(self) -> None:
        status = self.world.job.status
        passed = next((c for c in status.conditions if c.type == "Passed"), None)
        if passed is not None and passed.status == "True":
            assert status.report_uri == OUTCOME.report_uri
            assert self.world.succeeded == "True"

    @invariant()
    def no_job_before_the_adapter_is_known(self) -> None:
        assert not self.world.jobs or self.world.job.status.resolved is not None

    def teardown(self) -> None:
        self.world.upstream = FINISHED
        super().teardown()


class ComparedLife(EvaluationLife):
    """Beside its FineTuneJob also the AdapterRollout may come and go, and serve one adapter after the other."""

    def __init__(self) -> None:
        super().__init__()
        self.compared: object = None

    def make(self, **spec: Any) -> World:
        return EvaluationWorld(baseline={"rolloutName": "guide"}, **spec)

    @rule(there=st.booleans(), serves=st.sampled_from((None, "7", "8", "e")))
    def the_rollout_changes(self, there: bool, serves: str | None) -> None:
        self.world.rollout = adapterrollout(serves) if there else None

    @invariant()
    def what_it_is_compared_with_stays(self) -> None:
        now = self.world.job.status.baseline
        if self.compared is not None:
            assert now == self.compared
        self.compared = now

    @invariant()
    def it_is_never_compared_with_itself(self) -> None:
        status = self.world.job.status
        assert not self.world.jobs or status.target.digest != status.baseline.digest

    def teardown(self) -> None:
        self.world.rollout = adapterrollout("7")
        super().teardown()


class QueuedLife(Life):
    queued = True


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestEvaluationLife = EvaluationLife.TestCase
TestEvaluationLife.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestComparedLife = ComparedLife.TestCase
TestComparedLife.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
TestQueuedLife = QueuedLife.TestCase
TestQueuedLife.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
