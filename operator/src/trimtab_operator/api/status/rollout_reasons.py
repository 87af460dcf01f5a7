"""Every reason of an AdapterRollout: of its conditions, of single pods, and of adapters that were taken back."""

from __future__ import annotations

from enum import StrEnum

from trimtab_agent.failures import FailureReason

from .reasons import Explanation


class RolloutReason(StrEnum):
    """Reasons of Ready, Progressing and Verified; at the end, of what was taken back and of a single pod."""

    # on the way
    WAITING_FOR_SOURCE = "WaitingForSource"
    LOADING = "Loading"
    CANARY = "Canary"
    MOVING = "Moving"
    PAUSED = "Paused"
    AWAITING_APPROVAL = "AwaitingApproval"
    AUTHORS_NOT_BOUND = "AuthorsNotBound"
    # at rest
    SERVING = "Serving"
    NO_PODS = "NoPods"
    POD_NOT_UPDATED = "PodNotUpdated"
    # refused, and nothing was touched
    EVALUATION_NOT_FOUND = "EvaluationNotFound"
    EVALUATION_NOT_PASSED = "EvaluationNotPassed"
    NOTHING_PASSED = "NothingPassed"
    ARTIFACT_MISSING = "ArtifactMissing"
    DIGEST_MISMATCH = "DigestMismatch"
    BASELINE_CHANGED = "BaselineChanged"
    ADAPTER_NAME_CONFLICT = "AdapterNameConflict"
    NAME_IS_BASE_MODEL = "NameIsBaseModel"
    NAME_TAKEN = "NameTaken"
    DOES_NOT_FIT = "DoesNotFit"
    RANK_TOO_HIGH = "RankTooHigh"
    NOT_AN_ADAPTER = "NotAnAdapter"
    AGENT_KEY_MISSING = "AgentKeyMissing"
    NOT_UNDERSTOOD = "NotUnderstood"
    REJECTED = "Rejected"
    # taken back
    ROLLED_BACK = "RolledBack"
    ERROR_RATIO = "ErrorRatio"
    LATENCY = "Latency"
    # of a pod
    UNREACHABLE = "Unreachable"
    ENGINE_DOWN = "EngineDown"
    ENGINE_HARMED = "EngineHarmed"


def _true(meaning: str, next_step: str = "Nothing.") -> Explanation:
    return Explanation("succeeded", meaning, next_step)


def _false(meaning: str, next_step: str = "Nothing.") -> Explanation:
    return Explanation("failed", meaning, next_step)


def _unknown(meaning: str, next_step: str = "Nothing.") -> Explanation:
    return Explanation("active", meaning, next_step)


_REFUSED: dict[RolloutReason, Explanation] = {
    RolloutReason.WAITING_FOR_SOURCE: _false(
        "The Evaluation of the source has no verdict yet.", "Nothing; `kubectl get ftev` shows how far it is."
    ),
    RolloutReason.EVALUATION_NOT_FOUND: _false(
        "There is no Evaluation of the name in `source.evaluationName`; it is waited for.",
        "Create the Evaluation, or correct the name.",
    ),
    RolloutReason.EVALUATION_NOT_PASSED: _false(
        "The Evaluation of the source did not pass; what is served goes on.",
        "Read the verdict in the message; train better, and name an Evaluation that passes.",
    ),
    RolloutReason.NOTHING_PASSED: _false(
        "No Evaluation with the labels of `source.follow` has passed; the next that does is taken.",
        "Nothing; or correct the selector, or label the Evaluations.",
    ),
    RolloutReason.ARTIFACT_MISSING: _false(
        "The Evaluation of the source was of the base model alone, so there is no adapter to serve.",
        "Name an Evaluation of an adapter.",
    ),
    RolloutReason.DIGEST_MISMATCH: _false(
        "The Evaluation was asked about another digest than the one that its status answers about.",
        "Create the Evaluation again.",
    ),
    RolloutReason.BASELINE_CHANGED: _false(
        "The Evaluation compared with another adapter than the one that is served now.",
        "Create the Evaluation again, with `baseline.rolloutName`.",
    ),
    RolloutReason.ADAPTER_NAME_CONFLICT: _false(
        "An older AdapterRollout serves the same `adapterName` on pods that both select; it keeps the name.",
        "Choose another `adapterName` or selector, or delete one of the two.",
    ),
    RolloutReason.NAME_IS_BASE_MODEL: _false(
        "An engine serves its base model under `adapterName`.", "Create the AdapterRollout with another name."
    ),
    RolloutReason.NAME_TAKEN: _false(
        "Another adapter's digest begins with the same 8 digits, so both would have one name in the engines.",
        "Train once more, with another seed.",
    ),
    RolloutReason.DOES_NOT_FIT: _false(
        "An engine has no room for the old and the new revision side by side; none was touched.",
        "Start the engines with a higher `--max-cpu-loras`, or retire another adapter.",
    ),
    RolloutReason.RANK_TOO_HIGH: _false(
        "The adapter's rank is above what an engine serves; none was touched.",
        "Start the engines with a higher `--max-lora-rank`, or train with a lower `lora.rank`.",
    ),
    RolloutReason.NOT_AN_ADAPTER: _false(
        "What the source names is a whole model, all of whose weights were trained; none was touched.",
        "Start engines with the model itself, or train an adapter: a FineTuneJob without `lora.type: None`.",
    ),
    RolloutReason.AGENT_KEY_MISSING: _false(
        "The operator has no key to sign documents with, so agents would believe nothing; what is served goes on.",
        "Set `agentKey` of the chart: let it make the key, or name the Secret that has it.",
    ),
    RolloutReason.REJECTED: _false(
        "A reviewer rejects the digest, so it does not begin, or was taken back; what was served is served on.",
        "Read the Reviews with `kubectl get rev`; name another adapter. When the reviewer approves it after all, or "
        "deletes the Review, it begins anew.",
    ),
    RolloutReason.ROLLED_BACK: _false(
        "The canary was worse, or could not prove the adapter: requests are with the revision before. The digest is "
        "not tried again until the spec changes.",
        "Read `status.rejected` and the message; name another adapter, or change the spec to try it once more.",
    ),
}
"""Nothing new is on its way, and why."""

_READY: dict[RolloutReason, Explanation] = {
    **_REFUSED,
    RolloutReason.SERVING: _true("Every pod that matches answers with the wanted adapter, as read back."),
    RolloutReason.LOADING: _false(
        "The new revision is loaded and proven under its own name; no request goes to it yet.",
        "Nothing; where a pod cannot load it, the message says why.",
    ),
    RolloutReason.CANARY: _false(
        "The canary pods answer with the new revision for `canarySeconds`, and longer while a larger part of its "
        "requests than of the old revision's has not ended or was left by the client.",
        "Nothing; if it stays so, ask the canary pods themselves, and name another adapter if they hang.",
    ),
    RolloutReason.MOVING: _false("The alias moves on the pods that are left."),
    RolloutReason.PAUSED: _false(
        "`spec.paused` is true: no new revision begins, and no requests move on.", "Set `spec.paused: false`."
    ),
    RolloutReason.AWAITING_APPROVAL: _false(
        "The revision waits for the approvals that `strategy.approvals` requires. A canary goes on meanwhile, and a "
        "bad one is still taken back.",
        "Look at the adapter, then `kubectl trimtab approve` or `reject`; the message names the command.",
    ),
    RolloutReason.AUTHORS_NOT_BOUND: _false(
        "Approvals are required, and nothing makes sure who wrote a Review, so none counts: the admission policy of "
        "the chart is not in force.",
        "Set `admissionPolicies.enabled: true` in the values of the chart, or take `strategy.approvals` out.",
    ),
    RolloutReason.NO_PODS: _false(
        "No pod matches the selector; the adapter waits for one.",
        "Start an engine with the agent, or correct `serving.selector`; its pods need `trimtab.dev/stage: serve`.",
    ),
    RolloutReason.POD_NOT_UPDATED: _false(
        "Some pods do not answer with the served revision; the others do.",
        "Read `status.podReasons`; a pod that comes back is brought up to date by itself.",
    ),
    RolloutReason.NOT_UNDERSTOOD: _unknown(
        "The object has a value that this version of the operator does not know, such as one of a later version's; "
        "nothing of it is touched, what is served goes on.",
        "Wait for the other version, or correct the field that the message names.",
    ),
}

_MOVES = (RolloutReason.LOADING, RolloutReason.CANARY, RolloutReason.MOVING, RolloutReason.POD_NOT_UPDATED)
_PROGRESSING: dict[RolloutReason, Explanation] = {
    reason: Explanation("succeeded" if reason in _MOVES else "failed", told.meaning, told.next_step)
    for reason, told in _READY.items()
    if reason is not RolloutReason.NOT_UNDERSTOOD
}

_VERIFIED: dict[RolloutReason, Explanation] = {
    RolloutReason.WAITING_FOR_SOURCE: _unknown("There is no revision to verify yet.", "Read `Ready`."),
    RolloutReason.SERVING: _true("The revision is loaded and proven in every pod, and nothing is on its way."),
    RolloutReason.MOVING: _true("The revision is loaded and proven in every pod; requests move, or an old one drains."),
    RolloutReason.LOADING: _false("Some pods have not loaded and proven the revision.", "Read `status.podReasons`."),
    RolloutReason.NO_PODS: _false("No pod matches the selector.", "Read `Ready`."),
}

READY_EXPLANATIONS: dict[str, Explanation] = {each.value: told for each, told in _READY.items()}
"""Explanations of an AdapterRollout's `Ready`, by reason."""
PROGRESSING_EXPLANATIONS: dict[str, Explanation] = {each.value: told for each, told in _PROGRESSING.items()}
"""Explanations of an AdapterRollout's `Progressing`, by reason."""
VERIFIED_EXPLANATIONS: dict[str, Explanation] = {each.value: told for each, told in _VERIFIED.items()}
"""Explanations of an AdapterRollout's `Verified`, by reason."""


def _adapter(meaning: str, next_step: str) -> Explanation:
    return Explanation("adapter", meaning, next_step)


def _pod(meaning: str, next_step: str) -> Explanation:
    return Explanation("pod", meaning, next_step)


_NEXT_DOCUMENT = "Nothing, the next document is right; report it if it repeats."
_ON_THE_WAY = "Look for what changes requests on their way."


def _document(meaning: str, next_step: str = _NEXT_DOCUMENT) -> Explanation:
    return Explanation("document", meaning, next_step)


_OF_PODS: dict[FailureReason | RolloutReason | str, Explanation] = {
    RolloutReason.ERROR_RATIO: _adapter(
        "The canary's errors per request were above those of the old revision by more than "
        "`analysis.maximumErrorRatioIncrease`, and by more than chance makes them.",
        "Read the engine's log; correct the adapter, or allow more and change the spec.",
    ),
    RolloutReason.LATENCY: _adapter(
        "The canary's answers began later, or went on more slowly, than those of the old revision: by more than "
        "`analysis.maximumLatencyRatio`, and by more than chance makes them.",
        "Look at the adapter's rank and at the canary pod's node; or allow more and change the spec.",
    ),
    FailureReason.ARTIFACT_MISSING: _adapter(
        "Nothing is at the adapter's uri, or its bucket is not there.", "Restore it, or correct `source.artifact.uri`."
    ),
    FailureReason.ARTIFACT_DAMAGED: _adapter(
        "A file of the adapter has other bytes than its manifest says, or cannot be read.",
        "Restore or publish it again.",
    ),
    FailureReason.DIGEST_MISMATCH: _adapter(
        "What is at the uri is another adapter than the digest says.", "Restore it, or name its digest."
    ),
    FailureReason.BASE_MODEL_MISMATCH: _adapter(
        "The adapter was trained on another base model than the engine serves.",
        "Serve that base model, or train on the one that is served.",
    ),
    FailureReason.RANK_TOO_HIGH: _adapter(
        "The adapter's rank is above the engine's limit.",
        "Start the engines with a higher `--max-lora-rank`, or train with a lower `lora.rank`.",
    ),
    FailureReason.NOT_FINITE: _adapter("A weight is not a finite number.", "Train again, with a lower learning rate."),
    FailureReason.MAGNITUDE_TOO_HIGH: _adapter(
        "A weight is so large that the engine would only compute nonsense with it.",
        "Train again, with a lower learning rate.",
    ),
    FailureReason.CHANGES_NOTHING: _adapter(
        "The adapter answers just as the base model does: its weights are zero, or do not reach the answer.",
        "Train longer; or allow it with `probe.differsFromBase: false`.",
    ),
    FailureReason.NOT_SUPPORTED: _adapter(
        "The adapter has a form that engines do not serve, such as DoRA or whole modules.",
        "Train with the settings of a FineTuneJob.",
    ),
    FailureReason.ENGINE_REFUSED: _adapter(
        "The engine refuses the adapter, with the words of the message.", "Correct what the message names."
    ),
    FailureReason.PROBE_FAILED: _adapter(
        "The revision's answer to `spec.probe` failed, or lacks the text in `contains`.",
        "Ask the adapter the same; correct the probe or the adapter.",
    ),
    FailureReason.BASE_HARMED: _adapter(
        "With the adapter loaded, the base model did not answer any more. The engine restarts without it.",
        "Do not serve this adapter; report it with the engine's version.",
    ),
    FailureReason.NEIGHBOUR_HARMED: _adapter(
        "With the adapter loaded, another adapter did not answer any more. The engine restarts without it.",
        "Do not serve this adapter; report it with the engine's version.",
    ),
    RolloutReason.UNREACHABLE: _pod(
        "The pod's agent does not answer on its port.",
        "Look at the agent's container; let the operator in, if a NetworkPolicy forbids it.",
    ),
    RolloutReason.ENGINE_DOWN: _pod("The engine does not answer its agent.", "Look at the engine's container."),
    RolloutReason.ENGINE_HARMED: _pod(
        "An adapter has harmed the engine, which restarts; its next process never loads that adapter.",
        "Nothing; do not serve the adapter that the message names.",
    ),
    FailureReason.ACCESS_DENIED: _pod(
        "Object storage refuses the credentials of the serving pod.",
        "Correct the Secret or identity of the serving pods, or the bucket's policy.",
    ),
    FailureReason.STORAGE_FAILED: _pod(
        "Object storage does not answer, or the volume is full; it is tried again.", "Look at the storage if it stays."
    ),
    FailureReason.DOES_NOT_FIT: _pod(
        "The engine has no room for one more revision.",
        "Start it with a higher `--max-cpu-loras`, or retire another adapter.",
    ),
    FailureReason.ENGINE_FAILED: _pod("The engine failed to load or to answer; it is tried again.", "Read its log."),
    FailureReason.NAME_TAKEN: _pod(
        "The engine, or another rollout, has another adapter under the revision's name.",
        "Unload what was loaded by hand, or restart the engine.",
    ),
    FailureReason.LOADING_DISABLED: _pod(
        "The engine does not load adapters while it runs.",
        "Start it with `--enable-lora` and `VLLM_ALLOW_RUNTIME_LORA_UPDATING=1`.",
    ),
    FailureReason.VOLUME_NOT_SHARED: _pod(
        "The engine does not see the files that the agent has written.",
        "Mount the shared volume at the same path in both containers.",
    ),
    "NotVerified": _document(
        "The alias was to move to a revision that the pod has not proven, for example because its engine has just "
        "restarted.",
        "Nothing; it is brought in first.",
    ),
    "AliasHeld": _document(
        "Another AdapterRollout holds the alias in this pod.", "Choose another `adapterName`, or delete one of the two."
    ),
    "NameIsBaseModel": _document(
        "The alias is the name of the engine's base model.", "Create the AdapterRollout with another `adapterName`."
    ),
    "TooManyShares": _document(
        "The pod holds as many AdapterRollouts as an agent takes.", "Select its pods by fewer AdapterRollouts."
    ),
    "SequenceOld": _document("The pod holds a newer document, that of a later leader."),
    "SequenceReused": _document("The pod holds another document with the same sequence."),
    "NamespaceWrong": _document("The agent was told another namespace.", "Correct its `POD_NAMESPACE`."),
    "KeyUnknown": _document(
        "The agent does not know the operator's key; a new one takes about a minute to reach the pod.",
        "Mount the ConfigMap `trimtab-agent-keys` into the agent, at `TRIMTAB_KEYS`.",
    ),
    "AudienceWrong": _document(
        "The token is for another namespace or pod.", "Correct the agent's `POD_NAMESPACE` and `POD_UID`."
    ),
    "TokenExpired": _document("The token's time was over when it was read.", "Compare the clocks of the nodes."),
    "TokenInvalid": _document("The token's signature or form is wrong.", _ON_THE_WAY),
    "TokenMissing": _document("The request had no token.", _ON_THE_WAY),
    "TokenTooLong": _document("The token lives longer than an agent accepts."),
    "TokenElsewhere": _document("The token is for another request."),
    "BodyChanged": _document("The token was signed for another body.", _ON_THE_WAY),
    "Internal": _document(
        "The agent failed by the document, for example because the volume is full.",
        "Look at the agent's log; the document is sent again.",
    ),
    "BodyIncomplete": _document("The body ended before its end, or is not encoded as it says.", _ON_THE_WAY),
    "TooLarge": _document("The document is larger than an agent reads."),
    "DocumentInvalid": _document(
        "The agent does not understand the document, for example because it is of an older version.",
        "Run the same version of the operator's image as agent.",
    ),
}

POD_EXPLANATIONS: dict[str, Explanation] = {str(each): told for each, told in _OF_PODS.items()}
"""Explanations of the reasons in `status.podReasons` and `status.rejected`."""
