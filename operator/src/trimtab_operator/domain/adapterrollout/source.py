"""Which adapter is wanted: the gate must be open, the digest known, and what it was compared with still served."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from trimtab_agent.contract import Revision

from trimtab_operator.api import PASSED, Condition, Evaluation, PassedReason, State
from trimtab_operator.api.adapterrollout import AdapterRollout, Follow
from trimtab_operator.api.status.rollout_reasons import RolloutReason as Reason

from .observed import Observed
from .revisions import revision_of, was_served


@dataclass(frozen=True)
class Held:
    """Nothing new is wanted, and why; what is served goes on. `final`: waiting alone does not change it."""

    reason: str
    message: str
    final: bool = False


def wanted(observed: Observed) -> Revision | Held:
    """Return the adapter that the source names, or what keeps it from being taken."""
    return _unless_a_model(_wanted(observed), observed.ranks)


def _unless_a_model(found: Revision | Held, ranks: Mapping[str, int | None]) -> Revision | Held:
    if isinstance(found, Revision) and found.digest in ranks and ranks[found.digest] is None:
        message = (
            f"{found.digest} is a whole model, all of whose weights were trained (lora.type: None), and engines load "
            "adapters: start an engine with it instead"
        )
        return Held(Reason.NOT_AN_ADAPTER, message, final=True)
    return found


def _wanted(observed: Observed) -> Revision | Held:
    rollout, source = observed.rollout, observed.rollout.spec.source
    if source.artifact is not None:
        return _unless_rejected(rollout, revision_of(rollout, source.artifact.uri, source.artifact.digest))
    if source.evaluation_name is not None:
        name = source.evaluation_name
        found = next((each for each in observed.evaluations if each.metadata.name == name), None)
        if found is None:
            message = f"there is no Evaluation {name} in this namespace; it is waited for"
            return Held(Reason.EVALUATION_NOT_FOUND, message)
        return _of_evaluation(rollout, found)
    return _followed(observed)


def may_be_taken(rollout: AdapterRollout, evaluation: Evaluation, ranks: Mapping[str, int | None]) -> bool:
    """Tell whether a rollout may take what an Evaluation judged, now or once something has been waited for."""
    found = _unless_a_model(_of_evaluation(rollout, evaluation), ranks)
    return isinstance(found, Revision) or not found.final


def _of_evaluation(rollout: AdapterRollout, evaluation: Evaluation) -> Revision | Held:
    name, passed = evaluation.metadata.name, _passed(evaluation)
    if passed is None or passed.status == "Unknown":
        return Held(Reason.WAITING_FOR_SOURCE, f"waits for the verdict of Evaluation {name}")
    if passed.status == "False" and (same := _served_already(rollout, evaluation)) is not None:
        return same
    if passed.status == "False":
        message = f"Evaluation {name} did not pass ({passed.reason}): {passed.message}"
        return Held(Reason.EVALUATION_NOT_PASSED, message, final=True)
    target, asked = evaluation.status.target, evaluation.spec.target.artifact
    if target is None or target.digest is None or target.uri is None:
        message = f"Evaluation {name} is of the base model alone: there is no adapter to serve"
        return Held(Reason.ARTIFACT_MISSING, message, final=True)
    if asked is not None and asked.digest != target.digest:
        message = f"Evaluation {name} was asked about {asked.digest} and answers about {target.digest}; run it again"
        return Held(Reason.DIGEST_MISMATCH, message, final=True)
    revision = revision_of(rollout, target.uri, target.digest)
    return baseline_changed(rollout, evaluation, revision) or _unless_rejected(rollout, revision)


def _passed(evaluation: Evaluation) -> Condition | None:
    return next((each for each in evaluation.status.conditions if each.type == PASSED), None)


def _served_already(rollout: AdapterRollout, evaluation: Evaluation) -> Revision | None:
    """Return what is served where the Evaluation had nothing to compare it with but itself: created again, mostly."""
    target, now = evaluation.status.target, rollout.status.served
    ended = any(each.reason == State.NOTHING_TO_COMPARE for each in evaluation.status.conditions)
    if not ended or target is None or now is None or target.digest != now.digest:
        return None
    return revision_of(rollout, now.uri, now.digest)


def baseline_changed(rollout: AdapterRollout, evaluation: Evaluation, revision: Revision) -> Held | None:
    """Refuse an answer to yesterday's question: it was compared with an adapter that is not served any more.

    What was served before passed then; going back to it needs no new comparison. An Evaluation without a baseline, or
    against the base model alone, asked for nothing else; one that asked for what was served, when nothing was, did.
    """
    baseline, now = evaluation.status.baseline, rollout.status.served
    if now is None or baseline is None or was_served(rollout.status, revision.digest):
        return None
    asked = evaluation.spec.baseline
    follows = asked is not None and asked.rollout_name is not None
    if baseline.digest == now.digest or (baseline.digest is None and not follows):
        return None
    message = (
        f"Evaluation {evaluation.metadata.name} compared with {baseline.digest or 'the base model alone'}, but "
        f"{now.digest} is served now; "
        "evaluate against what is served"
    )
    return Held(Reason.BASELINE_CHANGED, message, final=True)


def _unless_rejected(rollout: AdapterRollout, revision: Revision) -> Revision | Held:
    for each in rollout.status.rejected:
        if each.digest == revision.digest and each.generation == rollout.metadata.generation:
            message = (
                f"{revision.name} was taken back ({each.reason}: {each.message}); it is not tried again until the spec "
                "of this object changes"
            )
            return Held(Reason.ROLLED_BACK, message, final=True)
    return revision


def passed_time(observed: Observed, digest: str) -> str | None:
    """Return when the followed Evaluation that names an adapter completed; None where the source follows none."""
    for each in _passed_and_followed(observed):
        if each.status.target is not None and each.status.target.digest == digest:
            return each.status.completion_time or ""
    return None


def _passed_and_followed(observed: Observed) -> list[Evaluation]:
    """Return the Evaluations to follow that passed, newest first."""
    follow = observed.rollout.spec.source.follow
    if follow is None:
        return []
    mine = [each for each in observed.evaluations if follow.selector.matches(each.metadata.labels)]
    passed = [each for each in mine if (found := _passed(each)) is not None and may_be_followed(found, follow)]
    return sorted(passed, key=_completion, reverse=True)


def may_be_followed(passed: Condition, follow: Follow) -> bool:
    """Tell whether an Evaluation passed in a way that is followed: a word that is not known is no judgement."""
    judged = passed.reason == PassedReason.PASSED or not follow.require_thresholds
    return passed.status == "True" and judged


def _followed(observed: Observed) -> Revision | Held:
    """Return the target of the passed Evaluation that completed last; what was taken back is passed over.

    One that is deleted or run again does not bring back what an older one named: nothing is followed backwards.
    """
    rollout = observed.rollout
    newest, taken = _taken(rollout)
    first: Held | None = None
    for evaluation in _passed_and_followed(observed):
        if _completion(evaluation)[0] < newest:
            break
        found = _of_evaluation(rollout, evaluation)
        if isinstance(found, Revision):
            # What is passed over is said as long as nothing newer takes its place.
            now = rollout.status.served
            return first if first is not None and now is not None and found.digest == now.digest else found
        first = first or found
        if found.reason != Reason.ROLLED_BACK:
            break  # an older Evaluation is no substitute for the newest, only for one that was tried
    follow = rollout.spec.source.follow
    judged = follow is not None and follow.require_thresholds
    which = "no Evaluation with these labels and thresholds" if judged else "no Evaluation with these labels"
    message = f"{which} has passed; the next that does is taken"
    return first or taken or Held(Reason.NOTHING_PASSED, message)


def _taken(rollout: AdapterRollout) -> tuple[str, Revision | None]:
    """Return what was taken from an Evaluation that was followed, and when that had completed."""
    for each in (rollout.status.step, rollout.status.served):
        if each is not None and each.passed is not None:
            return each.passed, revision_of(rollout, each.uri, each.digest)
    return "", None


def _completion(evaluation: Evaluation) -> tuple[str, str]:
    return (evaluation.status.completion_time or "", evaluation.metadata.name)
