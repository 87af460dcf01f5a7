"""The evaluate stage: from prepared rows to published results. `__main__` calls `evaluate`.

Each side (the target, then the baseline) answers the tasks in order, and its scores are stored as each task finishes;
figures are made of the stored scores alone. So everything between two tasks can be thrown away: a signal ends it at
once, and the next attempt goes on at the first task that has no scores.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from ..contract import (
    Check,
    EvaluationConfig,
    EvaluationEngine,
    EvaluationOutcome,
    EvaluationTask,
    PreparedEvaluation,
    TaskType,
    Threshold,
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
from .asking.generation import Decoding, generate_rows
from .asking.likelihoods import score_pairs, score_rows
from .asking.models import Models, quantization
from .asking.score_store import ScoresKey, TaskScores, read_scores, seed_of, write_scores
from .comparison import compare, with_anchor
from .judging.choosing import judge_of
from .judging.judge import judge_task
from .preparing.looks import note_looks
from .preparing.task_store import PreparedTask, PreparedTasks, load_tasks
from .reporting.outcome_store import publish, read_outcome
from .reporting.page import render
from .results import EvaluatedModel, EvaluationResults, JudgeResults, TaskResults
from .rows import EvaluationRow

BESIDE_ANCHOR = "target beside the anchor"
"""The target's scores as a judge gave them who saw the anchor's answers."""


def evaluate(  # noqa: PLR0917 all of them in the order that they are needed
    config: EvaluationConfig,
    prepared: PreparedEvaluation,
    attempt: int,
    scratch: Path,
    report: Report,
    board: ProgressBoard,
    stop: Interruption | None = None,
) -> EvaluationOutcome:
    """Ask the target and the baseline every task, compare their answers, and publish what was found.

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
            outcome = run.publish(run.compare(run.judge(run.ask())))
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
            SettingsInvalid: an adapter is not the one that was prepared for; the judge's key is not there.
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
        self.judges: dict[tuple[str, str], JudgeResults] = {}
        # Before anything is asked: what its key lacks is known by now.
        self._judge = judge_of(config.judge, scratch, config.batch_size) if config.judge is not None else None
        self._untried = self._judge
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
                stored = self._stored(side, task, key)
                if stored is None:
                    lacking.setdefault(key.digest, _Asked([], task, key)).sides.append(side)
                else:
                    self._note(found, side, task, stored)
        missing = list(lacking.values())
        if missing:
            self._try_judge()
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

    def _try_judge(self) -> None:
        """See once that the judge can be asked, while no answers are lost if not.

        Where all answers are stored nobody is tried: what was judged may be all that is needed.
        """
        judge, self._untried = self._untried, None
        if judge is not None and any(task.judging is not None for task in self.config.tasks):
            judge.try_out(self.stop, self.report)

    def _stored(self, side: _Side, task: EvaluationTask, key: ScoresKey) -> TaskScores | None:
        scores = read_scores(self.store, key, self.scratch / "scores", self.report)
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

    # -- judging ------------------------------------------------------------------------------------------------------

    def judge(self, found: dict[tuple[str, str], TaskScores]) -> dict[tuple[str, str], TaskScores]:
        """Return the scores with what the judge says of those that are judged, once all answers are there."""
        judge, tasks = self._judge, [task for task in self.config.tasks if task.judging is not None]
        if judge is None or not tasks:
            return found
        self.models.release()
        self.board.update(activity="Judging")
        with self.stop.at_once():
            for task in tasks:
                target = found["target", task.name]
                for role in ("baseline", "anchor") if self.config.anchor is not None else ("baseline",):
                    other = found.get((role, task.name))
                    judged, self.judges[role, task.name] = judge_task(
                        judge,
                        self.store,
                        task,
                        self._rows(task, target),
                        target.scores,
                        other.scores if other is not None else None,
                        folder=self.scratch / "judgements",
                        stop=self.stop,
                        report=self.report,
                    )
                    found["target" if role == "baseline" else BESIDE_ANCHOR, task.name] = TaskScores(judged.target)
                    if judged.baseline is not None:
                        found[role, task.name] = TaskScores(judged.baseline)
        return found

    # -- figures ------------------------------------------------------------------------------------------------------

    def compare(self, found: dict[tuple[str, str], TaskScores]) -> EvaluationResults:
        """Return everything that the scores tell."""
        config, prepared = self.config, self.prepared
        sides = {side.role: side.adapter for side in self.sides}
        tasks, checks = [], []
        for task, about in zip(config.tasks, self.tasks.tasks, strict=True):
            self.stop.check()
            results, more = self._compare(task, about, found)
            tasks.append(results.model_copy(update={"looks": self.looks[task.name]}))
            checks += more
            self.report("task compared", task=task.name, results=len(results.results))
        checks.sort(key=lambda check: check.threshold)
        return EvaluationResults(
            digest=prepared.evaluation_digest,
            name=config.run.name,
            namespace=config.run.namespace,
            base_model=self._described(None),
            target=self._described(sides["target"]),
            baseline=self._described(sides["baseline"]) if "baseline" in sides else None,
            anchor=self._described(sides["anchor"]) if "anchor" in sides else None,
            precision=config.precision,
            seed=config.seed,
            resamples=config.resamples,
            tasks=tasks,
            thresholds=config.thresholds,
            checks=checks,
            lineage=self._lineage(),
        )

    def _compare(
        self, task: EvaluationTask, about: PreparedTask, found: dict[tuple[str, str], TaskScores]
    ) -> tuple[TaskResults, list[Check]]:
        target, baseline = found["target", task.name], found.get(("baseline", task.name))
        thresholds: list[tuple[int, Threshold]] = [
            (index, each) for index, each in enumerate(self.config.thresholds) if each.task == task.name
        ]
        seed, resamples, rows = self.config.seed, self.config.resamples, self._rows(task, target)
        results, checks = compare(
            task,
            about,
            rows,
            target.scores,
            baseline.scores if baseline is not None else None,
            thresholds,
            seed=seed,
            resamples=resamples,
            lower_is_better=target.lower_is_better,
            judge=self.judges.get(("baseline", task.name)),
        )
        anchor = found.get(("anchor", task.name))
        if anchor is None:
            return results, checks
        results, more = with_anchor(
            results,
            task,
            rows,
            found.get((BESIDE_ANCHOR, task.name), target).scores,
            anchor.scores,
            thresholds,
            seed=seed,
            resamples=resamples,
            lower_is_better=target.lower_is_better,
            judge=self.judges.get(("anchor", task.name)),
        )
        return results, [*checks, *more]

    def _rows(self, task: EvaluationTask, scores: TaskScores) -> list[EvaluationRow]:
        return self.tasks.rows(task.name) if scores.rows is None else scores.rows

    def _described(self, adapter: FetchedAdapter | None) -> EvaluatedModel:
        if adapter is None:
            return EvaluatedModel(
                uri=self.config.base_model.uri, digest=self.prepared.base_model_digest, label="base model"
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

    def publish(self, results: EvaluationResults) -> EvaluationOutcome:
        """Store results and report; return what is stored."""
        self.board.update(activity="Publishing")
        return publish(self.store, results, render(results))
