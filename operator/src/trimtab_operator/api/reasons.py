"""Every reason of `Succeeded`: what it means and what a person does next. Reasons are part of the API."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from trimtab_trainer.contract import Reason

from .conditions import AttemptReason, State


@dataclass(frozen=True)
class Explanation:
    """A row of the table in docs/api.md."""

    when: Literal["active", "succeeded", "failed", "attempt"]
    """active: Succeeded is Unknown; attempt: only the reason of an attempt, another one follows it."""
    meaning: str
    next_step: str


def _active(meaning: str, next_step: str = "Nothing.") -> Explanation:
    return Explanation("active", meaning, next_step)


def _failed(meaning: str, next_step: str) -> Explanation:
    return Explanation("failed", meaning, next_step)


_EXPLANATIONS: dict[State | Reason | AttemptReason, Explanation] = {
    State.PENDING: _active("An object of an earlier job of this name is still there; it is waited for."),
    State.SUSPENDED: _active(
        "`spec.suspend` is true; the pod has written a checkpoint and is gone.",
        "Set `spec.suspend: false`, and the job goes on from its checkpoint.",
    ),
    State.QUEUED: _active(
        "The pod waits for a node, with the scheduler's words, or its Job for admission by a Kueue queue.",
        "Add capacity, correct resources, nodeSelector or tolerations in a new job, or look at the queue.",
    ),
    State.QUOTA_EXCEEDED: _active(
        "A ResourceQuota of the namespace refuses the pod.", "Raise the quota or wait until other pods end."
    ),
    State.PREPARING: _active("The data are checked, split, tokenised and packed; no accelerator is held."),
    State.TRAINING: _active("The adapter is trained; `status.progress` moves."),
    State.PUBLISHING: _active("The adapter is evaluated on the test split and uploaded."),
    State.RETRYING: _active("An attempt ended; the next one goes on from the newest checkpoint."),
    State.NAME_TAKEN: _active(
        "An object with the name of a child belongs to something else.", "Delete that object, or use another name."
    ),
    State.VOLUME_UNAVAILABLE: _active(
        "A volume cannot be mounted, most often because a Secret, ConfigMap or claim is missing.",
        "Create what the message names and the pod goes on; but after the operator's `podStartSeconds` the job fails.",
    ),
    State.IMAGE_UNAVAILABLE: _active(
        "The image cannot be pulled.",
        "Correct the image or `imagePullSecrets`. After the operator's `podStartSeconds` the job fails.",
    ),
    State.CONTAINER_INVALID: _active(
        "The container cannot be created, for example because a key of a Secret in `env` is missing.",
        "Create what the message names. After the operator's `podStartSeconds` the job fails.",
    ),
    State.COMPLETED: Explanation(
        "succeeded", "The adapter is published.", "Load it from `status.artifact.uri`; pin `status.artifact.digest`."
    ),
    State.DEADLINE_EXCEEDED: _failed(
        "Pods ran for `activeDeadlineSeconds`.",
        "Create the job again with a longer deadline; it goes on from its checkpoint.",
    ),
    State.RETRIES_EXHAUSTED: _failed(
        "More attempts failed, or were disrupted, than `spec.retries` allows.",
        "Read the attempts' reasons; create the job again, it goes on from its checkpoint.",
    ),
    State.SCRATCH_SPACE_EXCEEDED: _failed(
        "The pod wrote more than its scratch space holds and was evicted.",
        "Raise `scratchSize` in the operator's settings, or train on fewer data at a time.",
    ),
    State.POD_REFUSED: _failed(
        "The API server refuses the pod: Pod Security, an admission policy or a webhook.",
        "Correct what the message names, in `spec.template` of a new job or in the policy.",
    ),
    State.SPEC_INVALID: _failed(
        "The API server or the operator refuses the spec although the schema allows it.",
        "Correct the field that the message names, in a new job.",
    ),
    Reason.SETTINGS_INVALID: _failed("Settings do not go together.", "Correct the field that the message names."),
    Reason.BUCKET_NOT_FOUND: _failed("The bucket of a URI does not exist.", "Correct the URI or create the bucket."),
    Reason.CREDENTIALS_MISSING: _failed(
        "There are no credentials for object storage.", "Set `secretName`, or give the service account an identity."
    ),
    Reason.ACCESS_DENIED: _failed(
        "Object storage refuses the credentials.", "Correct the Secret that the message names, or the bucket's policy."
    ),
    Reason.BASE_MODEL_NOT_FOUND: _failed("Nothing is at `baseModel.uri`.", "Correct the URI or upload the model."),
    Reason.BASE_MODEL_INVALID: _failed(
        "The base model is incomplete or cannot be read.", "Upload the files that the message names again."
    ),
    Reason.BASE_MODEL_CHANGED: _failed(
        "The base model is not the one of `baseModel.digest`.",
        "Restore the model, or create a job with its new digest.",
    ),
    Reason.CHAT_TEMPLATE_INVALID: _failed(
        "The tokenizer has no usable chat template.", "Use an instruction model, or the format Text."
    ),
    Reason.TARGET_MODULES_NOT_FOUND: _failed(
        "A name in `lora.targetModules` is no linear layer of the model.", "Take names from the message."
    ),
    Reason.SEQUENCE_TOO_LONG: _failed(
        "`maxSequenceLength` is beyond what the model was built for.", "Lower `training.maxSequenceLength`."
    ),
    Reason.DATASET_INVALID: _failed("The data cannot be trained on.", "Correct what the message names."),
    Reason.DATASET_NOT_FOUND: _failed("Nothing is at a URI of the dataset.", "Correct the URI or upload the data."),
    Reason.DATASET_EMPTY: _failed("No row is left to train on.", "Look at the counts in the message."),
    Reason.DATASET_MALFORMED: _failed("A row cannot be read.", "Correct the file and line that the message names."),
    Reason.FORMAT_UNKNOWN: _failed(
        "The format of the rows is not known.", "Set `dataset.format`, or use the keys of one of the formats."
    ),
    Reason.NO_ASSISTANT_TURN: _failed(
        "Rows have nothing to learn from: no assistant turn.", "Add answers, or leave those rows out."
    ),
    Reason.SPLIT_IMPOSSIBLE: _failed(
        "Too few rows differ to hold out what was asked for.", "Lower the fraction or add data."
    ),
    Reason.OUT_OF_MEMORY: _failed(
        "The memory of the accelerator or of the container is too small.",
        "Lower `microBatchSize` or `maxSequenceLength`, or raise the limit; the message says which memory.",
    ),
    Reason.STORAGE_FAILED: Explanation(
        "attempt", "Object storage failed for longer than the trainer retries.", "Look at the storage if it repeats."
    ),
    Reason.INTERRUPTED: Explanation("attempt", "The pod was told to end, and wrote a checkpoint.", "Nothing."),
    AttemptReason.DISRUPTION_TARGET: Explanation(
        "attempt",
        "The cluster took the pod away: eviction, preemption, drain; its own reason is shown where known.",
        "Nothing; it is charged to `retries.onDisruption`.",
    ),
    AttemptReason.NODE_LOST: Explanation(
        "attempt", "The pod's node does not answer.", "Nothing; it is charged to `retries.onDisruption`."
    ),
    AttemptReason.JOB_DELETED: Explanation(
        "attempt", "Somebody deleted the attempt's Job.", "Nothing; it is charged to `retries.onDisruption`."
    ),
    AttemptReason.POD_VANISHED: Explanation(
        "attempt", "The pod ended and left no evidence.", "Nothing; it is charged to `retries.onDisruption`."
    ),
    AttemptReason.RESULT_LOST: Explanation(
        "attempt", "It succeeded, but its pod went before it was read.", "Nothing; the result is found in the storage."
    ),
    AttemptReason.CONTAINER_FAILED: Explanation(
        "attempt", "The container ended by a signal or an unknown code.", "Read the pod's log if it repeats."
    ),
    Reason.BUG: Explanation(
        "attempt", "The trainer or the operator has a bug.", "Report the traceback in the pod's log."
    ),
}

EXPLANATIONS: dict[str, Explanation] = {reason.value: explanation for reason, explanation in _EXPLANATIONS.items()}
"""Explanations by reason."""
