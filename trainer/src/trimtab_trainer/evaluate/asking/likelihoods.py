"""Summed log-likelihoods of token sequences: what perplexities, classifications and choices are made of.

What is promised of them: on a processor and in float32 they do not depend on the batch size, and an attempt that goes
on after another finds identical numbers. Padding stands on the right, where causal attention hides it; all shapes are
multiples of 16, because a matrix product computes a row of a larger matrix bit for bit the same only when no row is
left over for another kernel; and the library is told to round alike for every shape (`hardware.steady_products`).
Without the last, larger models differ in the last digits: measured up to 7e-8 of the value, on two threads. Mixtures
of experts may too: how many tokens an expert is given depends on what stands beside them.

What many sequences begin with (`stems`) goes through the model once. Which ones share is decided over all of them, so
it does not depend on batches either.

On accelerators, and in bfloat16, kernels are chosen by shape. There the same batches give the same numbers, but another
batch size, or one halved for memory, gives others by rounding: measured 1e-4 of the value in bfloat16 on a processor.

Stored numbers are rounded to `DECIMALS` of a nat: finer digits are below the precision of float32 sums.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor
from torch.nn import functional

from ...contract import Reason
from ...errors import SettingsInvalid
from ...interruption import Interruption
from ...report import Report
from ...training.machine.sizing import CHUNK
from ...training.network.adapter import Adapted
from ...training.network.model import LanguageModel
from ..rows import EvaluationRow, RowScore, Sequence
from .batching import in_batches
from .stems import MULTIPLE, Stem, lay, shares_stems, stems_of

DECIMALS = 6
"""Digits behind the point of a stored log-likelihood."""


def score_rows(
    model: LanguageModel,
    rows: list[EvaluationRow],
    *,
    batch_size: int | None,
    stop: Interruption,
    report: Report,
) -> list[RowScore]:
    """Return the log-likelihoods of every sequence of every row, in the order of rows.

    Raises: as `log_likelihoods`.
    """
    flat = [sequence for row in rows for sequence in row.sequences]
    found = iter(log_likelihoods(model, flat, batch_size=batch_size, stop=stop, report=report))
    return [
        RowScore(row.number, tuple(round(next(found), DECIMALS) + 0.0 for _ in row.sequences))  # + 0.0: no -0.0
        for row in rows
    ]


def score_pairs(
    model: LanguageModel,
    rows: list[EvaluationRow],
    *,
    batch_size: int | None,
    stop: Interruption,
    report: Report,
) -> list[RowScore]:
    """Return of each row the log-likelihoods of its sequences, by the model and then by its base alone.

    Raises: as `log_likelihoods`.
    """
    own = score_rows(model, rows, batch_size=batch_size, stop=stop, report=report)
    base = own
    if isinstance(model, Adapted):
        with model.peft.disable_adapter():
            base = score_rows(model, rows, batch_size=batch_size, stop=stop, report=report)
    return [
        RowScore(score.number, score.log_likelihoods + alone.log_likelihoods)
        for score, alone in zip(own, base, strict=True)
    ]


def log_likelihoods(
    model: LanguageModel,
    sequences: list[Sequence],
    *,
    batch_size: int | None = None,
    stop: Interruption,
    report: Report,
) -> list[float]:
    """Return the log-likelihood in nats of each sequence's spans, summed in float64 over float32 log-softmaxes.

    Args:
        model: in evaluation mode; its adapter, if any, takes part.
        sequences: in any order and length; similar ones need not stand together.
        batch_size: sequences of a forward pass; as many as make a few thousand tokens if absent.
        stop: ends it between and inside batches.
        report: is told when memory ran out.

    Raises:
        Interrupted: told to stop.
        OutOfMemory: one sequence alone does not fit.
        SettingsInvalid: BASE_MODEL_INVALID, a token has no embedding; ARTIFACT_INVALID, a result is not finite.
    """
    check_vocabulary(model, (sequence.tokens for sequence in sequences))
    results = [math.nan] * len(sequences)
    # What a position predicts does not depend on its own last token, so the last one is never put in.
    inputs = [sequence.tokens[: max((stop for _, stop in sequence.spans), default=1) - 1] for sequence in sequences]
    stems = stems_of(inputs, shared=True)
    model.causal.eval()
    with stop.at_once(), torch.no_grad(), model.arithmetic():
        if any(stem.tokens for stem in stems) and not shares_stems(model, max(map(len, inputs))):
            stems = stems_of(inputs, shared=False)
        for batch, sums in in_batches(
            stems,
            lambda stem: stem.longest,
            lambda batch: _batch(model, batch, sequences),
            lines=lambda stem: len(stem.branches),  # each holds a copy of the stem's keys and values
            halves=Stem.halves,
            alike=lambda stem: len(stem.tokens),
            batch_size=batch_size,
            where=model.device,
            stop=stop,
            report=report,
        ):
            for index, total in zip(_members(batch), sums, strict=True):
                results[index] = total
    broken = sum(not math.isfinite(result) for result in results)
    if broken:
        raise SettingsInvalid(
            f"{broken} of {len(results)} log-likelihoods are not finite, so these weights compute nothing; "
            "train the adapter again with a lower training.learningRate, or restore the base model",
            Reason.ARTIFACT_INVALID,
        )
    return results


def check_vocabulary(model: LanguageModel, sequences: Iterable[tuple[int, ...]]) -> None:
    """Refuse tokens that the model has no embedding for.

    Raises:
        SettingsInvalid: BASE_MODEL_INVALID.
    """
    size = int(model.causal.get_input_embeddings().weight.shape[0])
    largest = max((max(tokens) for tokens in sequences if tokens), default=0)
    if largest >= size:
        raise SettingsInvalid(
            f"the tokenizer makes token {largest}, but the base model has only {size} embeddings; "
            "take the tokenizer that belongs to the model",
            Reason.BASE_MODEL_INVALID,
        )


def _members(batch: list[Stem]) -> list[int]:
    return [index for stem in batch for branch in stem.branches for index in branch.members]


def _batch(model: LanguageModel, batch: list[Stem], sequences: list[Sequence]) -> list[float]:
    """Return the sums of all members of a batch, in order; its stems are equally long."""
    length = len(batch[0].tokens)
    owner = [number for number, stem in enumerate(batch) for _ in stem.branches]
    branches = [branch for stem in batch for branch in stem.branches]
    lines: list[int] = []
    columns: list[int] = []
    targets: list[int] = []
    owners: list[int] = []
    for number, (line, index) in enumerate((line, i) for line, branch in enumerate(branches) for i in branch.members):
        sequence = sequences[index]
        for start, stop in sequence.spans:
            lines += [line] * (stop - start)
            columns += range(start - 1, stop - 1)
            targets += sequence.tokens[start:stop]
            owners += [number] * (stop - start)
    line, column, wanted = torch.tensor([lines, columns, targets], dtype=torch.int64).to(model.device)
    laid = lay([branch.tokens for branch in branches], model.device, behind=length)
    if length:
        of_line = torch.tensor(owner, dtype=torch.int64, device=model.device)
        cache = model.cache()
        before = model.hidden(lay([stem.tokens for stem in batch], model.device), cache)
        cache.batch_select_indices(of_line)
        hidden = model.hidden(laid, cache)
        states = hidden[line, (column - length).clamp(min=0)]
        in_stem = column < length
        states[in_stem] = before[of_line[line[in_stem]], column[in_stem]]
    else:
        states = model.hidden(laid)[line, column]
    found = token_log_likelihoods(model, states, wanted)
    sums = torch.zeros(len(_members(batch)), dtype=torch.float64)
    return sums.index_add_(0, torch.tensor(owners, dtype=torch.int64), found.double().cpu()).tolist()


def token_log_likelihoods(model: LanguageModel, hidden: Tensor, targets: Tensor) -> Tensor:
    """Return float32 [n]: the log-likelihood of each target int64 [n] after its hidden state [n, H]."""
    parts = []
    for states, wanted in zip(torch.split(hidden, CHUNK), torch.split(targets, CHUNK), strict=True):
        spare = -len(states) % MULTIPLE
        logits = model.head(functional.pad(states, (0, 0, 0, spare)))[: len(states)].float()
        parts.append(-functional.cross_entropy(logits, wanted, reduction="none"))
    return torch.cat(parts)
