"""The evaluate stage: from prepared rows to answers, and to published results. `__main__` calls `evaluate`.

Each side (the target, then the baseline) answers the tasks in order, and its scores are stored as each task finishes;
figures are made of the stored scores alone. So everything between two tasks can be thrown away: a signal ends it at
once, and the next attempt goes on at the first task that has no scores.

Where an endpoint judges, the answers are the end: `judge` goes on with them, and holds no accelerator.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from ..contract import (
    EvaluationConfig,
    EvaluationEngine,
    EvaluationOutcome,
    EvaluationTask,
    PreparedEvaluation,
    TaskType,
    digest_of,
)
from ..errors import OutOfMemory
from ..interruption import Interruption
from ..pages.wording import short
from ..progress import ProgressBoard
from ..report import Report
from ..storage import Store, open_store
from ..training.machine import hardware
from ..training.machine.exhausted import is_out_of_memory
from ..training.network.model import LanguageModel
from ..training.train import machine
from .asking.adapters import FetchedAdapter, fetch_adapter
from .asking.answers import Answers, write_answers
from .asking.generation import Decoding, generate_rows
from .asking.likelihoods import score_pairs, score_rows
from .asking.models import Models, quantization
from .asking.score_store import ScoresKey, TaskScores, read_scores, seed_of, write_scores
from .conclusion import Conclusion
from .judging.local import LocalJudge
from .preparing.looks import note_looks
from .preparing.task_store import PreparedTask, PreparedTasks, load_tasks
from .reporting.outcome_store import read_outcome
from .results import BASE_MODEL, EvaluatedModel


def evaluate(  # noqa: PLR0917 all of them in the order that they are needed
    config: EvaluationConfig,
    prepared: PreparedEvaluation,
    attempt: int,
    scratch: Path,
    report: Report,
    board: ProgressBoard,
    stop: Interruption | None = None,
) -> EvaluationOutcome | str:
    """Ask the target and the baseline every task, compare their answers, and publish what was found.

    Where an endpoint is to judge the answers, return the digest under which they are stored.

    Args:
        config: the evaluation.
        prepared: the digests that `prepare` found.
        attempt: counts the attempts of an evaluation, for the log.
        scratch: a folder for the base model, adapters and rows.
        report: where events go.
        board: where progress goes: `step` counts tasks, target and baseline apart.
        stop: listens to SIGTERM by itself if absent.

    Raises:
        Interrupted: told to stop; the tasks that were finished are in storage.
        OutOfMemory: one sequence at a time does not fit.
        TrainerError: settings, data or storage do not allow it.
    """
    stop = stop or Interruption()
    with stop.listening(), stop.at_once():
        store = open_store(config.output.uri, config.output.credentials)
        board.update(activity="Loading")
        done = read_outcome(store, prepared.evaluation_digest)
        if done is not None:
            report("this evaluation has its outcome already", report=done.report_uri)
            return done
        hardware.configure()
        hardware.steady_products()
        try:
            run = Evaluation(config, prepared, store, scratch=scratch, report=report, board=board, stop=stop)
            report("evaluating", attempt=attempt, tasks=prepared.tasks, sides=len(run.sides))
            answers = run.answers()
            if config.judged_apart:
                digest = write_answers(store, prepared.evaluation_digest, answers)
                report("answers stored", answers=digest)
                return digest
            run.models.release()
            found = Conclusion(config, prepared, answers, run.tasks, run.looks, stop=stop, report=report, board=board)
            if config.judge is not None and config.judge.model is not None:
                judge = LocalJudge(config.judge.model, scratch, config.batch_size)
                found.judge(judge, store, scratch / "judgements")
            outcome = found.publish(store)
        except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
            if is_out_of_memory(error):
                raise OutOfMemory(
                    f"the memory does not suffice for this base model ({str(error).partition(chr(10))[0]}); raise the "
                    "memory limit, or evaluate with precision: AsTrained an adapter of quantization.type NF4"
                ) from error
            raise
    report("published", report=outcome.report_uri, results=outcome.results_digest, rows=outcome.rows)
    return outcome


@dataclass(frozen=True)
class _Side:
    """One of those that are asked, target, baseline or anchor: the base model with an adapter, or alone."""

    role: str
    adapter: FetchedAdapter | None


@dataclass(frozen=True)
class _Asked:
    """One task of one model that has no scores yet; it may be several sides: a first release is baseline and anchor."""

    sides: list[_Side]
    task: EvaluationTask
    key: ScoresKey

    @property
    def side(self) -> _Side:
        """The side that is asked."""
        return self.sides[0]


class Evaluation:
    """One evaluation of this process."""

    def __init__(
        self,
        config: EvaluationConfig,
        prepared: PreparedEvaluation,
        store: Store,
        *,
        scratch: Path,
        report: Report,
        board: ProgressBoard,
        stop: Interruption,
    ) -> None:
        """Fetch rows and adapters, and see to the precision; the base model is fetched when it is needed.

        Raises:
            SettingsInvalid: an adapter is not the one that was prepared for.
            DataInvalid: rows that are to be seen once were seen.
            ObjectMissing, ObjectDamaged: something is not in storage as it was written.
        """
        self.config, self.prepared, self.store = config, prepared, store
        self.scratch, self.report, self.board, self.stop = scratch, report, board, stop
        self.tasks: PreparedTasks = load_tasks(store, prepared.data_digest, scratch)
        self.looks = note_looks(store, prepared.evaluation_digest, config.tasks, self.tasks)
        self.sides = [_Side("target", self._adapter("target"))]
        if config.baseline is not None:
            self.sides.append(_Side("baseline", self._adapter("baseline")))
        if config.anchor is not None:
            self.sides.append(_Side("anchor", self._adapter("anchor")))
        adapters = [side.adapter for side in self.sides if side.adapter is not None]
        scheme = quantization(config, adapters)
        asked_as = self.sides[0].adapter
        template = asked_as.chat_template if asked_as is not None else None
        self._digests: dict[tuple[str, str], str] = {}
        self.models = Models(config, prepared, scheme, chat_template=template, scratch=scratch, report=report)

    def _adapter(self, role: str) -> FetchedAdapter | None:
        config, prepared = self.config, self.prepared
        settings, digest = {
            "target": (config.target, prepared.target_digest),
            "baseline": (config.baseline.artifact if config.baseline is not None else None, prepared.baseline_digest),
            "anchor": (config.anchor.artifact if config.anchor is not None else None, prepared.anchor_digest),
        }[role]
        if settings is None or digest is None:
            return None
        return fetch_adapter(settings, role, digest, self.scratch / role)

    # -- asking -------------------------------------------------------------------------------------------------------

    def ask(self) -> dict[tuple[str, str], TaskScores]:
        """Return the scores of every side and task, by role and name; what is not stored yet is asked and stored."""
        pairs = list(zip(self.config.tasks, self.tasks.tasks, strict=True))
        self.board.update(activity="Evaluating", step=0, total_steps=len(self.sides) * len(pairs))
        found: dict[tuple[str, str], TaskScores] = {}
        lacking: dict[str, _Asked] = {}
        for side in self.sides:
            for task, about in pairs:
                key = self._key(side, task, about)
                self._digests[side.role, task.name] = key.digest
                stored = self._stored(side, task, key)
                if stored is None:
                    lacking.setdefault(key.digest, _Asked([], task, key)).sides.append(side)
                else:
                    self._note(found, side, task, stored)
        missing = list(lacking.values())
        # First, and ended before our own model is loaded: both would not fit into one memory.
        self._ask_engine(found, [each for each in missing if self._by_engine(each.task)])
        for side in self.sides:
            ours = [each for each in missing if each.side is side and not self._by_engine(each.task)]
            if not ours:
                continue
            with self.models.of(side.adapter) as model:
                for each in ours:
                    self._keep(found, each, self._answers(model, each.task))
        return found

    def _by_engine(self, task: EvaluationTask) -> bool:
        return self.config.engine is EvaluationEngine.VLLM and task.generates

    @cached_property
    def _engine(self) -> dict[str, str]:
        """Name and version of the engine: another version gives other answers."""
        from .engine.process import installed_version  # what only who asks an engine needs

        return {"name": self.config.engine.value, "version": installed_version(self.report)}

    def _ask_engine(self, found: dict[tuple[str, str], TaskScores], asked: list[_Asked]) -> None:
        """Have a serving engine write the answers of these tasks, those of all sides by one engine."""
        if not asked:
            return
        from .engine.asking import answering  # what only who asks an engine needs

        self.board.update(activity="StartingEngine")
        questions = [(each.task, self.tasks.rows(each.task.name)) for each in asked]
        adapters = {each.side.role: each.side.adapter for each in asked if each.side.adapter is not None}
        with answering(
            self.models, adapters, questions, self.config, scratch=self.scratch, stop=self.stop, report=self.report
        ) as engine:
            self.board.update(activity="Evaluating")
            for each, (_, rows) in zip(asked, questions, strict=True):
                self._keep(found, each, engine.scores(each.side.role, each.task, rows))

    def _keep(self, found: dict[tuple[str, str], TaskScores], asked: _Asked, scores: TaskScores) -> None:
        """Store what was answered: whoever comes next need not ask it again."""
        stored = write_scores(self.store, asked.key, scores, self.scratch / "scores", self.report)
        for side in asked.sides:
            self._note(found, side, asked.task, stored)

    def _stored(self, side: _Side, task: EvaluationTask, key: ScoresKey) -> TaskScores | None:
        scores = read_scores(self.store, key.digest, self.scratch / "scores", self.report)
        if scores is not None:
            self.report("task was asked before", side=side.role, task=task.name, rows=len(scores.scores))
        return scores

    def _note(
        self, found: dict[tuple[str, str], TaskScores], side: _Side, task: EvaluationTask, scores: TaskScores
    ) -> None:
        found[side.role, task.name] = scores
        self.board.update(step=len(found))
        self.report("task asked", side=side.role, task=task.name, rows=len(scores.scores), done=len(found))

    def _key(self, side: _Side, task: EvaluationTask, about: PreparedTask) -> ScoresKey:
        return ScoresKey(
            task=about.digest,
            base_model=self.prepared.base_model_digest,
            adapter=side.adapter.digest if side.adapter is not None else None,
            quantization=self.models.quantization,
            compute_type=str(self.models.compute_type).removeprefix("torch."),
            seed=seed_of(task, self.config.seed),
            generated=task.generates,
            timed=self._timed() if task.timed else None,
            engine=self._engine if self._by_engine(task) else None,
        )

    def _timed(self) -> dict[str, str]:
        """Return what seconds are measured by: this evaluation alone, on the machine that it runs on."""
        told = machine(self.models.device, self.models.compute_type)
        return {"evaluation": self.prepared.evaluation_digest, "machine": digest_of(told)}

    def _answers(self, model: LanguageModel, task: EvaluationTask) -> TaskScores:
        size, stop = self.config.batch_size, self.stop
        if task.type is TaskType.HARNESS:
            from .harness.running import run_task  # lm-evaluation-harness: only for those who use it

            folder = self.tasks.harness_folder(task.name)
            rows, scores, lower_is_better = run_task(
                model, self.models.tokenizer, task, folder, seed=self.config.seed, batch_size=size, stop=stop
            )
            return TaskScores(scores, rows, lower_is_better)
        rows = self.tasks.rows(task.name)
        if task.type is TaskType.PREFERENCE:
            return TaskScores(score_pairs(model, rows, batch_size=size, stop=stop, report=self.report))
        if not task.generates:
            return TaskScores(score_rows(model, rows, batch_size=size, stop=stop, report=self.report))
        decoding, ends = Decoding.of(task, self.config.seed), self.models.ends
        return TaskScores(
            generate_rows(
                model,
                self.models.tokenizer,
                rows,
                decoding,
                ends,
                batch_size=size,
                timed=task.timed,
                stop=stop,
                report=self.report,
            )
        )

    # -- what is known of them ----------------------------------------------------------------------------------------

    def answers(self) -> Answers:
        """Return the answers of every side to every task, with what decided them."""
        scores = self.ask()
        models = {side.role: self._described(side.adapter) for side in self.sides}
        return Answers(scores, self._digests, models, self._lineage())

    def _described(self, adapter: FetchedAdapter | None) -> EvaluatedModel:
        if adapter is None:
            return EvaluatedModel(
                uri=self.config.base_model.uri, digest=self.prepared.base_model_digest, label=BASE_MODEL
            )
        return EvaluatedModel(uri=adapter.uri, digest=adapter.digest, label=short(adapter.digest))

    def _lineage(self) -> dict[str, Any]:
        lineage: dict[str, Any] = {
            "data": self.prepared.data_digest,
            "baseModel": self.prepared.base_model_digest,
            "quantization": self.models.quantization.to_json(),
            "machine": machine(self.models.device, self.models.compute_type),
        }
        if any(self._by_engine(task) for task in self.config.tasks):
            lineage["engine"] = self._engine
        for side in self.sides:
            if side.adapter is not None:
                made_from = {name: side.adapter.artifact.get(name) for name in ("baseModel", "data", "config")}
                lineage[side.role] = {
                    "digest": side.adapter.digest,
                    **made_from,
                    "run": side.adapter.record.get("runDigest"),
                    "settings": side.adapter.record.get("settings"),
                }
        return lineage
