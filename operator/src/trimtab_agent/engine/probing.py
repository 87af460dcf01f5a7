"""The proof that a loaded revision may take traffic: it answers, it changes something, and it harms nobody."""

from __future__ import annotations

import itertools

from ..contract import Probe, ProbeKind
from ..failures import FailureReason, RevisionFailed
from .vllm import Engine, Reply, Unhealthy

COUNTER = itertools.count()
OPENINGS = ("The weather on day {n} was", "Entry {n} of the list says that", "In the year {n} people")
"""Questions for the others. The number makes each prompt new, so that it fills cache blocks just given back: bad
numbers left in one of those is how a corrupt adapter harms its neighbours, and known prompts would not show it."""

BAD_ANSWERS = 2
"""So many bad answers to the openings are harm. One alone is not: a model may end its answer before it begins, and to
give an engine up costs far more than one more question; an engine that was poisoned answers none of them well."""


async def prove(engine: Engine, revision: str, probe: Probe, base: str, neighbour: str | None) -> None:
    """Ask the revision, then the base model and another adapter.

    Raises:
        RevisionFailed: permanent; `harmed` where base or neighbour answer badly after the revision was used.
        EngineUnreachable: it could not be asked.
    """
    if probe.kind not in {kind.value for kind in ProbeKind}:
        # Not for good: this agent is older than the operator, and its successor knows how to ask.
        message = f"this agent does not know probes of kind {probe.kind}; run the operator's version of the image"
        raise RevisionFailed(FailureReason.NOT_SUPPORTED, message, permanent=False)
    try:
        plain = await engine.ask(base, probe)
    except Unhealthy as error:
        # Before the revision was used for the first time: not its fault.
        raise RevisionFailed(
            FailureReason.ENGINE_FAILED, f"the base model does not answer the probe: {error}", permanent=False
        ) from error
    try:
        reply = await engine.ask(revision, probe)
    except Unhealthy as error:
        await _unharmed(engine, base, neighbour, probe, plain, cause=revision)
        raise RevisionFailed(FailureReason.PROBE_FAILED, str(error), permanent=True) from error
    await _unharmed(engine, base, neighbour, probe, plain, cause=revision)
    if probe.contains is not None and probe.contains not in reply.text:
        raise RevisionFailed(
            FailureReason.PROBE_FAILED,
            f"{revision} answered {reply.text[:120]!r}, which does not contain {probe.contains!r}",
            permanent=True,
        )
    if probe.differs_from_base and not reply.differs(plain):
        raise RevisionFailed(
            FailureReason.CHANGES_NOTHING,
            f"{revision} answers the probe exactly as the base model does, to the last digit of its probabilities",
            permanent=True,
        )


async def _unharmed(
    engine: Engine, base: str, neighbour: str | None, probe: Probe, plain: Reply, *, cause: str
) -> None:
    for model, reason in ((base, FailureReason.BASE_HARMED), (neighbour, FailureReason.NEIGHBOUR_HARMED)):
        if model is None:
            continue
        bad: list[str] = []
        for opening in OPENINGS:
            try:
                prompt = opening.format(n=next(COUNTER))
                await engine.ask(model, Probe(prompt=prompt, max_tokens=min(probe.max_tokens, 4)))
                if model == base and plain.text and not (await engine.ask(base, probe)).text:
                    raise Unhealthy(f"{base} says nothing any more")
            except Unhealthy as error:
                bad.append(str(error))
            if len(bad) >= BAD_ANSWERS or (not bad and opening == OPENINGS[1]):
                break
        if len(bad) >= BAD_ANSWERS:
            raise RevisionFailed(
                reason,
                f"after the first use of {cause}: {'; '.join(bad)}; the engine has to start again",
                permanent=True,
                harmed=True,
            )
