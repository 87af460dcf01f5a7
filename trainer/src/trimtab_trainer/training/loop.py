"""The training loop, top to bottom: evaluate, checkpoint, stop or step.

A step's gradient is the mean over all supervised tokens of its batch: every micro-batch adds its summed loss divided
by the tokens of the whole batch, so how a batch is cut into micro-batches does not change it. `train` builds a
`Trainer`, resumes it from a checkpoint or not, and calls `run`.

Several processes (`distributed`) each compute their share of a step's micro-batches; the gradient is the sum, so that
all of them take the same step. What one of them meets is told to all before anything is changed.

The state changes only between steps and as a whole. Whatever interrupts (a signal, too little memory) finds it at the
end of a step, and what was begun since is thrown away.
"""

from __future__ import annotations

import itertools
import math
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn

from ..contract import Method, Reason, RunConfig
from ..errors import DataInvalid, Interrupted, OutOfMemory, ProcessLost, SettingsInvalid
from ..interruption import Interruption
from ..progress import ProgressBoard
from ..report import Report
from .batches import Batches, MicroBatch
from .checkpoint import Checkpoint, Checkpoints
from .distributed.checkpoints import check_alike
from .distributed.sharing import shared_micro_batch
from .distributed.world import World
from .idle import Idle
from .machine.energy import EnergyMeter
from .machine.exhausted import is_out_of_memory
from .machine.hardware import memory_peak
from .machine.transfer import Beside
from .methods.figures import PreferenceSums, figures_of, told
from .methods.objective import StepLoss, added, objective_of
from .network.trained import Trained
from .optimizer import load_optimizer_state, make_optimizer, optimizer_state, set_learning_rate
from .schedule import learning_rate, sequences_of_step, step_seed, steps_per_epoch
from .state import RECENT_STEPS, StepResult, TrainingState, advanced, evaluated

REPORT_SECONDS = 10
"""Time between the log lines of steps."""


@dataclass(frozen=True)
class Share:
    """What this process adds to a step: a summed loss and a method's sums, beside the gradient in the parameters.

    Attributes:
        weight, count: what the loss of the whole step is divided by, and what it is a mean over.
        supervised_tokens, tokens: of the whole step.
    """

    nats: float = 0.0
    weight: float = 0.0
    count: int = 0
    supervised_tokens: int = 0
    tokens: int = 0
    preference: PreferenceSums | None = None


class Trainer:
    """One run: model, data, optimizer and state."""

    def __init__(
        self,
        config: RunConfig,
        model: Trained,
        training: Batches,
        validation: Batches | None,
        *,
        total_steps: int,
        micro_batch: int,
        checkpoints: Checkpoints,
        base_hash: str,
        stop: Interruption,
        report: Report,
        board: ProgressBoard,
        world: World | None = None,
    ) -> None:
        """Take everything a run needs.

        Args:
            micro_batch: sequences of one forward pass, halved when memory runs out.
            base_hash: `frozen_hash` of the model.
            world: the processes that train together; this one alone if absent.

        Raises:
            DataInvalid: no token of a split is supervised.
        """
        for name, split in (("training", training), ("validation", validation)):
            if split is not None and int(split.supervised.sum()) == 0:
                raise DataInvalid(f"the {name} data has no supervised token", Reason.NO_ASSISTANT_TURN)
        self.settings = config.training
        self.checkpoint_settings = config.checkpoint
        self.model = model
        self.training, self.validation = training, validation
        self.objective = objective_of(config.training)
        self.test: Batches | None = None
        """Rows that the exported adapter is measured on."""
        self.total_steps = total_steps
        self.world = world or World()
        self.micro_batch = self.shared(micro_batch)
        self.checkpoints = checkpoints
        self.base_hash = base_hash
        self.stop, self.report, self.board = stop, report, board
        self.optimizer = make_optimizer(self.settings, model.parameters.values())
        self.state = TrainingState()
        # Boards of other pods are not seen: nothing is told then, rather than a part for the whole.
        alone = self.world.size == self.world.local_size
        self.energy = EnergyMeter.of(model.device, self.world.size) if alone else EnergyMeter(None)
        self.idle = Idle()
        self._beside = Beside(model.device)
        self._checked_gradients = False
        self._saved_step: int | None = 0  # step whose weights are in a checkpoint (0: nothing to save)
        self._reported = 0.0
        self._newest_seconds: list[tuple[int, float]] = []  # tokens and time of the newest steps

    # -- the run ------------------------------------------------------------------------------------------------------

    def run(self) -> TrainingState:
        """Train to the last step, or until early stopping; the last state is checkpointed when it returns.

        Raises:
            Interrupted: told to stop; everything done is in a checkpoint.
            SettingsInvalid: the loss, its gradient or the weights are not finite.
            OutOfMemory: a single sequence does not fit.
            ProcessLost: another process is gone; everything done is in a checkpoint.
            TrainerError: storage failed.
        """
        try:
            while True:
                self.world.stop_together(self.stop)
                if self.evaluation_is_due():
                    self.evaluate()
                finished = self.state.step >= self.total_steps or self.state.stopped_early
                if finished or self.checkpoint_is_due():
                    with self.idle.saving():
                        check_alike(self.model.parameters, self.world, self.state.step)
                    self.save()
                if finished:
                    self.checkpoints.wait(everything=True)
                    self.report("trained", steps=self.state.step, **self.idle.shares())
                    return self.state
                self.step()
        except (Interrupted, ProcessLost) as error:
            with self.stop.later():
                self.report(error.message, step=self.state.step)
                self.save_what_is_new()
            raise

    def evaluation_is_due(self) -> bool:
        """True once for every evaluateEverySteps steps and for the last step, if there is validation data."""
        step = self.state.step
        if self.validation is None or step in (0, self.state.evaluated_step):
            return False
        return step % self.settings.evaluate_every_steps == 0 or step >= self.total_steps

    def checkpoint_is_due(self) -> bool:
        """True for every everySteps steps, and after an evaluation that improved."""
        step, best = self.state.step, self.state.best
        if step in (0, self._saved_step):
            return False
        return step % self.checkpoint_settings.every_steps == 0 or (best is not None and best.step == step)

    # -- a step -------------------------------------------------------------------------------------------------------

    def step(self) -> None:
        """Do one optimizer step; the micro-batch is halved until the step fits into memory."""
        state = self.state
        started = time.monotonic()
        self.board.update(activity="Training")
        rate = learning_rate(self.settings, state.step, self.total_steps)
        set_learning_rate(self.optimizer, rate)
        while True:
            reason: str | None = None
            share = Share()
            with self.model.holding.working(self.stop, self.world):
                try:
                    share = self.accumulate()
                except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                    if not is_out_of_memory(error):
                        raise
                    reason = str(error).partition("\n")[0]
            with self.idle.saving():
                self.checkpoints.made()  # before anything that is copied changes, and before the loss of bad weights
            short, told = self.world.sum([reason is not None, self.stop.requested])
            if told:  # while the copy was waited for: the step that it is of is the last one
                self.stop.request()
                self.stop.check()
            if short:
                self.shrink(reason or "in another process")
                continue
            result = self.combine(share)
            if result is not None:
                break
            self.lower_scale()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.advance(result, rate, time.monotonic() - started)

    def gradient(self) -> StepResult | None:
        """Leave the gradient of the state's step in the parameters, clipped; change nothing else.

        Returns None where float16 could not hold the scaled gradient.

        Raises:
            SettingsInvalid: the loss or the gradient is not finite.
        """
        return self.combine(self.accumulate())

    def accumulate(self) -> Share:
        """Accumulate in the parameters what this process adds to the gradient of the state's step."""
        self.optimizer.zero_grad(set_to_none=True)
        self.model.module.train()
        indices = sequences_of_step(self.settings, len(self.training), self.state.step)
        tokens = int(self.training.supervised[indices].sum())
        step = self.objective.begin(self.model, self.training, indices, self.micro_batch, self.stop)
        weight = step.weight
        share, places = self.world.share, itertools.count(self.world.rank, self.world.size)
        where = self.model.device
        batches = self.training.micro_batches(indices, self.micro_batch, where, self.pass_tokens, share)
        waiting = iter(self.idle.waiting_for_data(batches))
        losses = []
        while self.model.holding.together((batch := next(waiting, None)) is not None, self.stop):
            with self.model.holding.passing(self.stop, training=True):
                if batch is not None:
                    torch.manual_seed(step_seed(self.settings, self.state.step, next(places)))
                    losses += self.differentiate(batch, step)
        # Once for the step: an accelerator is asked for nothing between its micro-batches.
        nats = float(sum(torch.stack(losses).tolist())) if losses else 0.0
        taken = int(self.training.lengths[indices].sum())
        return Share(nats, weight, step.count, tokens, taken, step.sums)

    def differentiate(self, batch: MicroBatch, step: StepLoss) -> list[Tensor]:
        """Add the gradient of a micro-batch to the parameters; return its summed loss, if it has any."""
        if batch.supervised_tokens == 0:
            return []
        with self.model.arithmetic():
            loss = step(self.model.hidden(batch), batch, self.model.head)
        (loss * (self.scale / step.weight)).backward()
        return [loss.detach()]

    def combine(self, share: Share) -> StepResult | None:
        """Make the gradient of the whole step of what all processes have of it, clipped."""
        parameters, tokens, weight = self.model.parameters, share.supervised_tokens, share.weight
        (nats,) = self.world.sum([share.nats])
        sums = added(self.world, share.preference)
        self.world.add_gradients(parameters)
        limit = self.settings.max_gradient_norm or math.inf
        if self.scale != 1.0:
            for parameter in parameters.values():
                if parameter.grad is not None:
                    parameter.grad.div_(self.scale)
        norm = float(nn.utils.clip_grad_norm_(list(parameters.values()), limit)) if tokens else 0.0
        if not math.isfinite(norm) and math.isfinite(nats) and self.scale > 1.0:
            return None
        if not (math.isfinite(nats) and math.isfinite(norm)):
            raise self._not_finite("gradient" if math.isfinite(nats) else "loss")
        if tokens and not self._checked_gradients:
            self.model.check_gradients()
            self._checked_gradients = True
        nats *= share.count / weight if weight else 1.0  # so that nats a token are the weighted mean
        return StepResult(nats, share.count, tokens, share.tokens, norm, sums)

    def _not_finite(self, what: str) -> SettingsInvalid:
        """Return the end of a run whose loss or gradient is no number; a first step is before anything was learned."""
        if self.state.step == 0:
            return SettingsInvalid(
                f"the {what} of step 1 is not finite, before anything was learned: the weights that it begins with "
                "hold what is no number, or compute it of these rows in this type; take others (baseModel, "
                f"lora.initialAdapter){self._remedy}"
            )
        return SettingsInvalid(
            f"the {what} of step {self.state.step + 1} is not finite; lower training.learningRate, or set "
            f"training.maxGradientNorm{self._remedy}"
        )

    @property
    def pass_tokens(self) -> int:
        """Tokens of a forward pass up to which it takes more sequences than a micro-batch.

        0 where that is set, where several processes share them, and of pairs, which are no lines.
        """
        alone = self.world.size == 1 and self.settings.method is Method.SFT
        return self.micro_batch * self.training.longest if alone and self.settings.micro_batch_size is None else 0

    @property
    def scale(self) -> float:
        """What the loss is multiplied by before it is differentiated: 1 but in float16."""
        return self.state.loss_scale if self.model.compute_type is torch.float16 else 1.0

    def lower_scale(self) -> None:
        """Halve the scale of the loss after a gradient that float16 could not hold; the step is done again."""
        self.state = self.state.model_copy(update={"loss_scale": self.scale / 2})
        self.report("gradient beyond float16, the loss is scaled less", scale=self.scale, step=self.state.step + 1)

    @property
    def _remedy(self) -> str:
        """What else helps in float16, whose largest number is 65504."""
        return ", or quantization.computeType: Float32" if self.model.compute_type is torch.float16 else ""

    def shared(self, micro_batch: int) -> int:
        """Return a micro-batch that leaves no process waiting longer than is needed; one that is set stays."""
        if self.settings.micro_batch_size is not None:
            return micro_batch
        return shared_micro_batch(micro_batch, self.settings.batch_size, self.world.size)

    def shrink(self, reason: str) -> None:
        """Halve the micro-batch after memory ran out.

        Raises:
            OutOfMemory: it is one sequence already.
        """
        self.optimizer.zero_grad(set_to_none=True)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        if self.micro_batch == 1 and self.model.recomputed < 1 and self.model.checkpoint_activations():
            self.report("memory ran out, activations are computed twice instead of kept", reason=reason)
            return
        if self.micro_batch == 1:
            raise OutOfMemory(
                f"a single sequence of up to {int(self.training.lengths.max())} tokens does not fit into memory "
                f"({reason}); raise the memory limit, or lower training.maxSequenceLength or lora.rank"
            )
        self.micro_batch = self.shared(smaller_micro_batch(self.micro_batch, self.settings.batch_size))
        self.board.micro_batch.set(self.micro_batch)
        self.report("memory ran out, micro-batch halved", micro_batch=self.micro_batch, reason=reason)

    def advance(self, result: StepResult, rate: float, seconds: float) -> None:
        """Move the state one step on and tell about it."""
        points, step = len(self.state.curve), self.state.step + 1
        self.state = advanced(
            self.state,
            result,
            seconds,
            total_steps=self.total_steps,
            epoch=round(step / steps_per_epoch(self.settings, len(self.training)), 4),
            micro_batch=self.micro_batch,
            kernels=self.model.kernels.parts,
            joules=self.energy.since_last(),
            memory=memory_peak(self.model.device),
        )
        self._newest_seconds = [*self._newest_seconds, (result.tokens, seconds)][-RECENT_STEPS:]
        board = self.board
        board.update(
            step=step,
            loss=self.state.loss,
            preference=self.state.preference,
            tokens_per_second=self.tokens_per_second(),
            eta_seconds=self.eta_seconds(),
            **({"curve": self.state.drawn} if len(self.state.curve) > points else {}),
        )
        board.learning_rate.set(rate)
        board.gradient_norm.set(result.gradient_norm)
        board.tokens.inc(result.tokens)
        board.supervised_tokens.inc(result.supervised_tokens)
        if torch.cuda.is_available():
            board.memory.set(torch.cuda.max_memory_allocated())
        now = time.monotonic()
        if step == self.total_steps or now - self._reported >= REPORT_SECONDS:
            self._reported = now
            self.report(
                "step",
                step=step,
                total_steps=self.total_steps,
                loss=round(result.nats / max(1, result.count), 6),
                gradient_norm=round(result.gradient_norm, 6),
                learning_rate=rate,
                tokens=result.tokens,
                seconds=round(seconds, 3),
                **told(figures_of(result.preference)),
            )

    def tokens_per_second(self) -> float | None:
        """Return the tokens of training sequences per second of the newest steps."""
        seconds = sum(taken for _, taken in self._newest_seconds)
        return sum(tokens for tokens, _ in self._newest_seconds) / seconds if seconds else None

    def eta_seconds(self) -> float | None:
        """Return the time the remaining steps will take, evaluations not counted."""
        if not self._newest_seconds:
            return None
        seconds = sum(taken for _, taken in self._newest_seconds) / len(self._newest_seconds)
        return round(seconds * (self.total_steps - self.state.step), 1)

    # -- evaluation ---------------------------------------------------------------------------------------------------

    def evaluate(self) -> None:
        """Measure the validation loss, and decide about best checkpoint and early stopping."""
        if self.validation is None:
            return
        started = time.monotonic()
        self.board.update(activity="Evaluating")
        measured = self.objective.measure(self.model, self.validation, self.stop, self.world)
        loss, preference = measured.loss, figures_of(measured.sums)
        if not math.isfinite(loss):
            raise SettingsInvalid(
                f"the validation loss after step {self.state.step} is not finite; lower training.learningRate"
                f"{self._remedy}"
            )
        self.state = evaluated(
            self.state,
            loss,
            self.checkpoints.name(self.state.step),
            self.settings.early_stopping,
            preference=preference,
        )
        if self.state.best is not None and self.state.best.step == self.state.step == self._saved_step:
            # Resumed from a checkpoint of this very step, which has the weights. Writing it anew, with this
            # evaluation, would put it at risk; whoever resumes from it evaluates again, to the same end.
            self.checkpoints.keep_best(self.model.trained_tensors(), self.model.kept_as)
        self.board.update(validation_loss=loss, validation_preference=preference, curve=self.state.drawn)
        self.board.evaluation_seconds.inc(time.monotonic() - started)
        self.report(
            "evaluation",
            step=self.state.step,
            validation_loss=round(loss, 6),
            best_step=self.state.best and self.state.best.step,
            stale_evaluations=self.state.stale_evaluations,
            seconds=round(time.monotonic() - started, 3),
            **told(preference),
        )

    # -- checkpoints --------------------------------------------------------------------------------------------------

    def save(self) -> None:
        """Have a checkpoint of the state written, unless that was done; the leader does for all.

        Copies are made while the next step computes its gradient, which changes nothing of what is copied.

        Raises:
            TrainerError: the checkpoint before could not be made or stored.
        """
        if self._saved_step == self.state.step:
            return
        self.board.update(activity="Checkpointing")
        with self.idle.saving():
            self.checkpoints.begin(partial(self._checkpoint, self.state, self._beside.now()))
        self._saved_step = self.state.step

    def _checkpoint(self, state: TrainingState, queue: AbstractContextManager[None]) -> Checkpoint | None:
        """Return a checkpoint of a state, in the process that leads; the body of a thread.

        Raises:
            SettingsInvalid: the weights are not finite; the checkpoint before is the newest.
        """
        with queue:
            if broken := self.model.broken():
                raise SettingsInvalid(
                    f"{len(broken)} trained weights are not finite after step {state.step} ({broken[0]}); lower "
                    f"training.learningRate, or set training.maxGradientNorm{self._remedy}"
                )
            if not self.world.leads:
                return None
            self.checkpoints.give_way()  # before memory is taken, and not before it is known that this one is good
            tensors, numbers = optimizer_state(self.optimizer, self.model.parameters)
            return Checkpoint(
                state=state,
                weights=self.model.trained_tensors(),
                optimizer_tensors=tensors,
                optimizer_numbers=numbers,
                base_hash=self.base_hash,
                kept_as=self.model.kept_as,
            )

    def save_what_is_new(self) -> None:
        """Before an early end: put everything done so far into a checkpoint that is whole in storage."""
        self.checkpoints.made()
        if self._saved_step == self.state.step:
            self.checkpoints.settle()
            if self.state.step != (self.checkpoints.newest_step or 0):
                self._saved_step = None  # its upload failed and was tolerated; now is the last chance
        self.save()
        self.checkpoints.made()  # so that the one that waits gives way to it, and takes no time
        self.checkpoints.wait(everything=True)

    def resume(self, checkpoint: Checkpoint) -> None:
        """Go on from a checkpoint.

        Raises:
            ValueError: it is not one of this run.
        """
        optimizer = make_optimizer(self.settings, self.model.parameters.values())
        load_optimizer_state(
            optimizer, self.model.parameters, checkpoint.optimizer_tensors, checkpoint.optimizer_numbers
        )
        self.model.load_trained_tensors(checkpoint.weights)
        self.optimizer = optimizer
        self.state = checkpoint.state
        self._saved_step = self.state.step
        # The same cuts, so the same sums: a run that was interrupted ends with the same bits.
        # Where there are more processes than then, none of them may go without.
        self.micro_batch = self.shared(self.state.micro_batch or self.micro_batch)
        self.board.micro_batch.set(self.micro_batch)
        self.model.kernels.keep(self.state.kernels)
        if lacking := set(self.state.kernels) - set(self.model.kernels.parts):
            self.report.warn("the run began with kernels that are not here: it rounds otherwise", parts=sorted(lacking))
        if checkpoint.base_hash != self.base_hash:
            self.report.warn("the frozen base differs from the checkpoint's: made on another kind of machine")
        state = self.state
        self.board.update(
            step=state.step,
            loss=state.loss,
            validation_loss=state.validation_loss,
            preference=state.preference,
            validation_preference=state.validation_preference,
            curve=state.drawn,
        )


def smaller_micro_batch(size: int, batch_size: int) -> int:
    """Return the largest divisor of batchSize that is at most half of a micro-batch."""
    return next((n for n in range(size // 2, 0, -1) if batch_size % n == 0), 1)
