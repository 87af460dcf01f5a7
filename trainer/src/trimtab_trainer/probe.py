"""Whether a base model computes as this trainer takes it to: two short probes before anything is trained.

`train` and the evaluator call `check_forward`. Whatever a library raises there becomes a named refusal.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from .contract import Reason
from .errors import SettingsInvalid
from .training.batches import MicroBatch
from .training.network.model import LanguageModel, brief
from .training.network.rows import row_layout

OF_THE_MACHINE = ("memory", "cuda", "cublas", "hip", "alloc")
"""Words of errors that say nothing of the model."""

PROBE_TOLERANCE = 0.02
"""Largest relative difference that rounding alone can make between two ways to the same number, in bfloat16."""

DRAWS = 3
"""Rows that a refusal in 16 bits has to hold of. A mixture of experts chooses between near ones by what rounding left,
and says something else then: that comes and goes with the tokens, what a model computes wrongly does not."""

NOTHING = 1e-6
"""Share of the largest gradient that is none: masked attention gives 0, but kernels differ in how they come to it."""


Refusal = tuple[str, Reason]
Gather = Callable[[Refusal | None], list[Refusal | None]]


def _alone(refusal: Refusal | None) -> list[Refusal | None]:
    return [refusal]


def check_forward(model: LanguageModel, packing: bool, gather: Gather = _alone) -> None:
    """Refuse a base model that this trainer would compute wrongly: short probes, and no trace of them.

    A model that is right under masks but not by rows, because some layer of it does not get the layout, goes on under
    masks.

    Args:
        gather: of several processes that train one model, what each of them found. All go on alike: what one draws
            again all do, for a divided model is computed by all together.

    Raises:
        SettingsInvalid: BASE_MODEL_INVALID when its logits are not those of its output head, or depend on later tokens;
            SETTINGS_INVALID when packing is on and rows of one sequence influence each other (state-space models, say).
    """
    try:
        _check(model, packing, gather)
    except SettingsInvalid:
        if not model.attends_by_rows:
            raise
        model.attend_under_masks()
        _check(model, packing, gather)


def _check(model: LanguageModel, packing: bool, gather: Gather) -> None:
    for draw in range(draws := 1 if model.compute_type is torch.float32 else DRAWS):
        if (refused := _refused(partial(_probe_forward, model, packing, draw), model, gather)) is None:
            break
        if draw == draws - 1:
            raise refused
    if any(parameter.requires_grad for parameter in model.causal.parameters()):
        refused = _refused(partial(_probe_backward, model, packing), model, gather)
        if refused is not None:
            raise refused


def _refused(probe: Callable[[], None], model: LanguageModel, gather: Gather) -> SettingsInvalid | None:
    """Return why a probe refuses the model, here or in another process; None where it refuses it in none."""
    own: SettingsInvalid | None = None
    try:
        probe()
    except SettingsInvalid as error:
        own = error
    except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and any(word in str(error).lower() for word in OF_THE_MACHINE):
            raise
        own = SettingsInvalid(
            f"{type(model.causal).__name__} does not compute as causal language models do ({brief(error)}); this kind "
            "of base model is not supported",
            Reason.BASE_MODEL_INVALID,
        )
        own.__cause__ = error
    found = gather(None if own is None else (str(own), own.reason))
    others = [SettingsInvalid(*refusal) for refusal in found if refusal is not None]
    return own or next(iter(others), None)


def _probe_forward(model: LanguageModel, packing: bool, draw: int) -> None:
    """Compare what two ways to the same number give, of rows of random tokens; another `draw` is of others.

    All is computed before anything is compared: of a divided model the other processes take part in it.
    """
    vocabulary = model.causal.get_input_embeddings().weight.shape[0]
    generator = torch.Generator().manual_seed(draw)
    row = torch.randint(0, vocabulary, (3, 8), generator=generator).to(model.device)
    count = torch.arange(8, device=model.device)[None]
    later = row[1:2].clone()
    later[0, -1] = (later[0, -1] + 1) % vocabulary
    # Not the row alone, whose sums are of other sizes and rounded otherwise: the first of two, as it sees none.
    pairs = ((row[1], row[0]), (row[0], row[1]), (row[2], row[1])) if packing else ()
    model.causal.eval()
    with torch.no_grad(), model.arithmetic():
        hidden = model.hidden(_probe(row[1:2], count))[0]
        logits = model.causal(input_ids=row[1:2], position_ids=count, use_cache=False).logits[0].float()
        headed = model.head(hidden).float()
        seen = model.hidden(_probe(later, count))[0, :-1]
        both = [model.hidden(_probe(torch.cat(pair)[None], count.repeat(1, 2)))[0] for pair in pairs]
    if _differ(headed, logits):
        raise SettingsInvalid(
            f"{type(model.causal).__name__} does more to its logits than its output head; "
            "this kind of base model is not supported",
            Reason.BASE_MODEL_INVALID,
        )
    if _differ(seen, hidden[:-1]):
        raise _sees_later(model)
    if both:
        first, second, again = both[0][:8], both[1][8:], both[2][8:]
        if _differ(second, again) or _differ(second, first):
            raise _influences(model)


def _probe_backward(model: LanguageModel, packing: bool) -> None:
    """Compute gradients and forget them: some models compute otherwise, or not at all, while they are trained.

    That of a row's first half by what is put in for each token tells which tokens these states depend on. It is 0 for
    all others, whatever numbers are rounded to, so that an influence shows however small it is.
    """
    rows, length = 2 if packing else 1, 8
    count = torch.arange(length, device=model.device)[None].repeat(1, rows)
    start, half = (rows - 1) * length, length // 2
    put_in: list[Tensor] = []

    def apart(_: object, __: object, output: Tensor) -> Tensor:
        put_in.append(output.detach().requires_grad_())
        return put_in[-1].clone()  # some models change it in place

    model.causal.train()
    hook = model.causal.get_input_embeddings().register_forward_hook(apart)
    try:
        with model.arithmetic():
            hidden = model.hidden(_probe(count + 1, count))[0, start : start + half].float()
        # Not a plain sum, of which norms leave nothing.
        weights = torch.randn(hidden.shape, generator=torch.Generator().manual_seed(0)).to(hidden.device)
        (hidden * weights).sum().backward()
    finally:
        hook.remove()
        model.causal.zero_grad(set_to_none=True)
        model.causal.eval()
    for gradient in (each.grad[0].abs() for each in put_in if each.grad is not None and each.dim() == 3):
        nothing = NOTHING * gradient.max()
        if bool((gradient[start + half :] > nothing).any()):
            raise _sees_later(model)
        if bool((gradient[:start] > nothing).any()):
            raise _influences(model)


def _sees_later(model: LanguageModel) -> SettingsInvalid:
    return SettingsInvalid(
        f"{type(model.causal).__name__} sees what comes after a token when it predicts that, so its loss would say "
        "nothing; this kind of base model is not supported",
        Reason.BASE_MODEL_INVALID,
    )


def _influences(model: LanguageModel) -> SettingsInvalid:
    return SettingsInvalid(
        f"{type(model.causal).__name__} lets packed rows influence each other; set training.packing: false"
    )


def _probe(tokens: Tensor, positions: Tensor) -> MicroBatch:
    rows = row_layout(positions.cpu().numpy().copy(), tokens.device)
    return MicroBatch(tokens, positions, tokens, tokens.numel(), 0, rows=rows)


def _differ(one: Tensor, other: Tensor) -> bool:
    return bool((one - other).abs().max() > PROBE_TOLERANCE * other.abs().max().clamp(min=1e-3))
