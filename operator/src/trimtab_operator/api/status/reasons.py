"""Every reason of a condition: what it means and what a person does next. Reasons are part of the API."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from trimtab_trainer.contract import Reason

from .conditions import EXPORT_REASONS, WARNED, AttemptReason, PassedReason, State, WarnedReason


@dataclass(frozen=True)
class Explanation:
    """A row of a table in docs/api.md."""

    when: Literal["active", "succeeded", "failed", "attempt", "adapter", "pod", "document"]
    """active: the condition is Unknown; attempt: only the reason of an attempt, another one follows it; adapter, pod,
    document: of one serving pod, and what is to blame."""
    meaning: str
    next_step: str


def _active(meaning: str, next_step: str = "Nothing.") -> Explanation:
    return Explanation("active", meaning, next_step)


def _failed(meaning: str, next_step: str) -> Explanation:
    return Explanation("failed", meaning, next_step)


_FINETUNEJOB: dict[State | Reason | AttemptReason, Explanation] = {
    State.PENDING: _active(
        "An object of an earlier job of this name is still there, or a container that an injector put before the "
        "trainer has not ended; it is waited for."
    ),
    State.SUSPENDED: _active(
        "`spec.suspend` is true; the pod has written a checkpoint and is gone.",
        "Set `spec.suspend: false`, and the job goes on from its checkpoint.",
    ),
    State.QUEUED: _active(
        "The pod waits for a node, with the scheduler's words, or its Job for admission by a Kueue queue or by whoever "
        "has suspended it.",
        "Add capacity, correct resources, nodeSelector or tolerations in `spec.template`, or look at the queue.",
    ),
    State.QUOTA_EXCEEDED: _active(
        "A ResourceQuota of the namespace refuses the Job or its pod.", "Raise the quota or wait until other pods end."
    ),
    State.MIRRORING: _active(
        "What the spec names on a hub (`hf://`) is copied into the output and verified; no accelerator is held."
    ),
    State.PREPARING: _active("The data are checked, split, tokenised and packed; no accelerator is held."),
    State.TRAINING: _active("The adapter is trained; `status.progress` moves."),
    State.PUBLISHING: _active("The adapter is evaluated on the test split and uploaded."),
    State.RETRYING: _active("An attempt ended; the next one goes on from the newest checkpoint."),
    State.NAME_TAKEN: _active(
        "An object with the name of a child belongs to something else, or something unknown seems to do the same work.",
        "Delete that object, or use another name.",
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
        "The pod wrote more than one of its volumes or its `ephemeral-storage` holds and was evicted.",
        "Raise what the message names, mostly `scratchSize` in the operator's settings, or train on fewer data at a "
        "time.",
    ),
    State.POD_REFUSED: _failed(
        "The API server refuses the Job or its pod: Pod Security, an admission policy or a webhook.",
        "Correct what the message names, in `spec.template` of a new job or in the policy. A webhook that is down is "
        "waited for without a limit.",
    ),
    State.NOT_UNDERSTOOD: _active(
        "The object has a value that this version of the operator does not know, such as one of a later version's; "
        "nothing of it is touched.",
        "Wait for the other version, or correct the field that the message names.",
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
    Reason.SOURCE_NOT_FOUND: _failed(
        "The hub has no such repository, or it is private and the token may not read it.",
        "Correct the `hf://` URI, or the `HF_TOKEN` of its Secret.",
    ),
    Reason.SOURCE_GATED: _failed(
        "The repository is gated, and its terms were not accepted with the account of the token.",
        "Accept the terms on the page that the message names; put that account's token into `HF_TOKEN`.",
    ),
    Reason.REVISION_NOT_FOUND: _failed(
        "The repository has no such branch, tag or commit.", "Take a revision that is there; best a commit."
    ),
    Reason.REVISION_MOVED: _failed(
        "A branch or tag of a hub is another commit now than the one whose digest `baseModel.digest` pins.",
        "Name the commit as revision, or create a job with the new digest, which the message has.",
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
    Reason.ACCELERATOR_UNUSABLE: _failed(
        "The pod was given an accelerator that the trainer cannot use: it would have computed on the processor. Or it "
        "was given more or fewer than processes are to train.",
        "Mend the driver of the node that the attempt names, or take an image that is built for this accelerator; of a "
        "claim say how many `accelerators` it stands for.",
    ),
    Reason.ARTIFACT_NOT_FOUND: _failed(
        "Nothing is at the URI of `lora.initialAdapter`.", "Take URI and digest from a FineTuneJob's `status.artifact`."
    ),
    Reason.ARTIFACT_INVALID: _failed(
        "`lora.initialAdapter` is incomplete or damaged.", "Publish it again, or leave it out."
    ),
    Reason.ARTIFACT_CHANGED: _failed(
        "What is at the URI of `lora.initialAdapter` has another digest than the one that was asked for.",
        "Restore the adapter, or create a job with the digest that is there.",
    ),
    Reason.BASE_MODEL_MISMATCH: _failed(
        "`lora.initialAdapter` was trained on another base model than `baseModel`.",
        "Set `baseModel.uri` to the model whose digest the message names, or leave it out.",
    ),
    Reason.DATASET_INVALID: _failed("The data cannot be trained on.", "Correct what the message names."),
    Reason.DATASET_NOT_FOUND: _failed("Nothing is at a URI of the dataset.", "Correct the URI or upload the data."),
    Reason.DATASET_EMPTY: _failed("No row is left to train on.", "Look at the counts in the message."),
    Reason.DATASET_MALFORMED: _failed("A row cannot be read.", "Correct the file and line that the message names."),
    Reason.FORMAT_UNKNOWN: _failed(
        "The format of the rows is not known, or a key means something that would not be learned.",
        "Set `dataset.format` or `dataset.ignoreKeys`, or use the keys of one of the formats.",
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
    Reason.PROCESS_LOST: Explanation(
        "attempt",
        "One of the processes that train together was killed, crashed or did not answer; the others ended with it.",
        "Look at the node's accelerators (`dmesg`, Xid errors) and at the limit of memory if it repeats.",
    ),
    Reason.INTERRUPTED: Explanation("attempt", "The pod was told to end, and wrote a checkpoint.", "Nothing."),
    AttemptReason.SPEC_CHANGED: Explanation(
        "attempt",
        "`template`, a `secretName` or the like changed before its pod ran, or while it was suspended.",
        "Nothing; the next attempt is made from what the spec says now, and no budget pays.",
    ),
    AttemptReason.DISRUPTION_TARGET: Explanation(
        "attempt",
        "The cluster took the pod away: eviction, preemption, drain; its own reason is shown where known.",
        "Nothing; it is charged to `retries.onDisruption`.",
    ),
    AttemptReason.NODE_LOST: Explanation(
        "attempt", "The pod's node does not answer, or restarted.", "Nothing; it is charged to `retries.onDisruption`."
    ),
    AttemptReason.JOB_DELETED: Explanation(
        "attempt", "Somebody deleted the attempt's Job.", "Nothing; it is charged to `retries.onDisruption`."
    ),
    AttemptReason.POD_FAILED: Explanation(
        "attempt",
        "The node did not take the pod, for example because a device is not healthy, or the pod was ended as a whole; "
        "the message has the words.",
        "Nothing, if it passes: it is charged to `retries.onDisruption`. Look at the node if it repeats.",
    ),
    AttemptReason.POD_VANISHED: Explanation(
        "attempt", "The pod ended and left no evidence.", "Nothing; it is charged to `retries.onDisruption`."
    ),
    Reason.PREPARED_DATA_MISSING: Explanation(
        "attempt",
        "What preparing wrote is gone from the storage or was changed, often by a lifecycle rule.",
        "Nothing, it is prepared again; but exempt `data/` of the output from lifecycle rules of a few days.",
    ),
    Reason.MIRROR_MISSING: Explanation(
        "attempt",
        "What was mirrored of a hub is gone from the output, often by a lifecycle rule.",
        "Nothing, the same commit is mirrored again; but exempt `models/` and `datasets/` of the output.",
    ),
    Reason.HUB_UNREACHABLE: Explanation(
        "attempt",
        "The hub does not answer, or not as a hub does.",
        "Let pods with the label `trimtab.dev/stage: mirror` out (deploy/samples/networkpolicy.yaml), or name a mirror "
        "in `HF_ENDPOINT`.",
    ),
    Reason.HUB_QUOTA_EXCEEDED: Explanation(
        "attempt",
        "The hub was asked too often from this address (429).",
        "Nothing; the next attempt waits as long as the hub says. A token has a quota of its own.",
    ),
    Reason.SOURCE_DAMAGED: Explanation(
        "attempt",
        "A file came with other bytes than the hub's listing says; nothing of it is kept.",
        "Look at what stands between the cluster and the hub if it repeats.",
    ),
    AttemptReason.RESULT_LOST: Explanation(
        "attempt",
        "It succeeded, but its pod went before it was read, or said nothing.",
        "Nothing; the result is found in the storage. The third ends the work: see what keeps pods from being read.",
    ),
    AttemptReason.CONTAINER_FAILED: Explanation(
        "attempt", "The container ended by a signal or an unknown code.", "Read the pod's log if it repeats."
    ),
    Reason.BUG: Explanation(
        "attempt", "The trainer or the operator has a bug.", "Report the traceback in the pod's log."
    ),
}

FINETUNEJOB_EXPLANATIONS: dict[str, Explanation] = {each.value: told for each, told in _FINETUNEJOB.items()}
"""Explanations of a FineTuneJob's `Succeeded`, by reason."""

_EVALUATION: dict[State | Reason | AttemptReason, Explanation] = {
    State.PENDING: _active(
        "The FineTuneJob of the target is waited for: it is still active, or there is none of this name "
        "(FineTuneJobNotFound). Or there is no AdapterRollout of the name in `baseline.rolloutName` (RolloutNotFound). "
        "Or an object of an earlier Evaluation of this name is still there.",
        "Nothing while the FineTuneJob is active. Else create what is missing, or correct the name in a new one.",
    ),
    State.SUSPENDED: _active(
        "`spec.suspend` is true; the tasks that are done are in object storage and the pod is gone.",
        "Set `spec.suspend: false`, and it goes on with the next task.",
    ),
    State.PREPARING: _active("Artifacts, tasks and rows are checked and pinned; no accelerator is held."),
    State.EVALUATING: _active(
        "The tasks are asked, of target and baseline; `status.progress` moves. Then, where `judge.endpoint` judges, a "
        "Job without an accelerator asks it."
    ),
    State.PUBLISHING: _active("Figures are computed, and results and report uploaded."),
    State.RETRYING: _active("An attempt ended; the next one goes on with the task that was not finished."),
    State.COMPLETED: Explanation(
        "succeeded",
        "All tasks were asked and the results are written; whether they are good enough is in `Passed`.",
        "Read `Passed`, and the report at `status.reportURI`.",
    ),
    State.FINE_TUNE_JOB_FAILED: _failed(
        "The FineTuneJob of the target failed, so there is no adapter to evaluate.",
        "Look at the FineTuneJob; create it and the Evaluation again.",
    ),
    State.NOTHING_TO_COMPARE: _failed(
        "Target and baseline are the same: the AdapterRollout of the baseline serves the target already, or it serves "
        "nothing yet and the target is the base model. A rollout of this Evaluation goes on to serve the target.",
        "Nothing, or evaluate it against something else.",
    ),
    State.DEADLINE_EXCEEDED: _failed(
        "Pods ran for `activeDeadlineSeconds`.",
        "Create the Evaluation again with a longer deadline; tasks that are done are not asked again.",
    ),
    State.RETRIES_EXHAUSTED: _failed(
        "More attempts failed, or were disrupted, than `spec.retries` allows.",
        "Read the attempts' reasons; create the Evaluation again, tasks that are done are not asked again.",
    ),
    State.SCRATCH_SPACE_EXCEEDED: _failed(
        "The pod wrote more than one of its volumes or its `ephemeral-storage` holds and was evicted.",
        "Raise what the message names, mostly `scratchSize` in the operator's settings, or set a `limit` for the "
        "largest task.",
    ),
    State.NOT_UNDERSTOOD: _active(
        "The object has a value that this version of the operator does not know, such as one of a later version's; "
        "nothing of it is touched.",
        "Wait for the other version, or correct the field that the message names.",
    ),
    State.SPEC_INVALID: _failed(
        "A threshold is on a result that its task does not give, no judge can be asked at `judge.endpoint.url`, or the "
        "FineTuneJob of the target trains a whole model (`lora.type: None`).",
        "Correct the field that the message names, in a new Evaluation.",
    ),
    Reason.BASE_MODEL_CHANGED: _failed(
        "The base model is not the one of `baseModel.digest`, or not the one that was there when it was prepared.",
        "Restore the model, or create an Evaluation with its new digest.",
    ),
    Reason.CHAT_TEMPLATE_INVALID: _failed(
        "The tokenizer has no chat template that can be asked with.", "Use an instruction model, or rows of text."
    ),
    Reason.DATASET_INVALID: _failed("The rows of a task cannot be asked.", "Correct what the message names."),
    Reason.DATASET_NOT_FOUND: _failed("Nothing is at a task's `dataset.uri`.", "Correct the URI or upload the rows."),
    Reason.DATASET_EMPTY: _failed("A task has no row to ask.", "Look at the counts in the message."),
    Reason.FORMAT_UNKNOWN: _failed(
        "The format of a task's rows is not known, or a key means something that would not be asked.",
        "Set its `dataset.format`, or use the keys of one of the formats.",
    ),
    Reason.NO_ASSISTANT_TURN: _failed(
        "Rows have no answer to compare with: no assistant turn.", "Add answers, or leave those rows out."
    ),
    Reason.OUT_OF_MEMORY: _failed(
        "The memory of the accelerator or of the container is too small, for single rows too.",
        "Raise the limit or use a larger accelerator; the message says which memory.",
    ),
    Reason.ARTIFACT_NOT_FOUND: _failed(
        "Nothing is at the URI of an adapter.", "Correct the URI of the artifact that the message names."
    ),
    Reason.ARTIFACT_INVALID: _failed(
        "An adapter is incomplete, damaged, or does not fit the base model's layers.",
        "Publish it again, or take its URI and digest from the FineTuneJob's `status.artifact`.",
    ),
    Reason.ARTIFACT_CHANGED: _failed(
        "What is at the URI of an adapter has another digest than the one that was asked for.",
        "Restore the adapter, or create an Evaluation with the digest that is there.",
    ),
    Reason.BASE_MODEL_MISMATCH: _failed(
        "An adapter was trained on another base model than `baseModel`.",
        "Set `baseModel.uri` to the model whose digest the message names.",
    ),
    Reason.TOKENIZER_MISMATCH: _failed(
        "Perplexities of different tokenizers cannot be compared.", "Use the metric BitsPerByte in that task."
    ),
    Reason.METRIC_NOT_APPLICABLE: _failed(
        "A metric cannot be computed of a task's rows.", "Remove it from the task's `metrics`, or correct the rows."
    ),
    Reason.HARNESS_TASK_NOT_FOUND: _failed(
        "No YAML file in the task's folder has the name in `harnessTask`, or lm-evaluation-harness brings no task "
        "`builtin`.",
        "Take a name from the message, or upload the file.",
    ),
    Reason.HARNESS_TASK_REFUSED: _failed(
        "A Harness task's file wants to run code, to reach the network or files outside its folder, or has keys that "
        "are not supported; or a `builtin` task is asked of another data set than its own.",
        "Remove the key that the message names from the YAML file, or name the data set that it names.",
    ),
    Reason.LABEL_UNKNOWN: _failed(
        "The answer of a row is none of the task's `labels`.", "Add the label, or correct the row that is named."
    ),
    Reason.GROUP_MISSING: _failed(
        "A row lacks the column of `groupBy`, or its groups have too few rows for a bound on them.",
        "Add the column to every row or rows to the groups that the message names, or remove `groupBy`.",
    ),
    Reason.REFERENCE_MISSING: _failed(
        "A row lacks the answer, the number or the choices that its task needs.",
        "Complete the row that the message names.",
    ),
    Reason.TEST_SPLIT_MISSING: _failed(
        "`dataset.split` is Test, but the adapter was published without held-out rows.",
        "Give the task a `dataset.uri`, or train with `dataset.test`.",
    ),
    Reason.TRAINED_ON: _failed(
        "The target was trained on more of a task's rows than `maximumTrainedOnRatio` allows.",
        "Take rows that were held out of training, such as `dataset.split: Test`.",
    ),
    Reason.FINAL_SET_OPENED: _failed(
        "Rows of a task with `dataset.final` were seen by another Evaluation.",
        "Take rows that none has seen; or remove `final`, and mind `status.looks`.",
    ),
    Reason.ANSWERS_MISSING: Explanation(
        "attempt",
        "What was answered is gone from the storage or was changed, before it was judged; often by a lifecycle rule.",
        "Nothing, the models are asked again; but exempt `evaluations/` of the output from lifecycle rules.",
    ),
    Reason.JUDGE_REFUSED: _failed(
        "The judge's endpoint does not take what it is asked, or does not answer as an OpenAI-compatible server.",
        "Correct `judge.endpoint.url` or `.model`; the message says what it answered.",
    ),
    Reason.JUDGE_UNREADABLE: _failed(
        "Nothing that the judge replied to a first question of a task is one of the replies that it may give.",
        "Take a judge that keeps to a `response_format` and does not think aloud, or correct `judging.instructions`.",
    ),
    Reason.JUDGE_PROMPT_TOO_LONG: _failed(
        "A question to the local judge has more tokens than the judge was made for.",
        "Lower `maxNewTokens`, shorten the rows or `judging.instructions`, or take a judge with a longer context.",
    ),
    Reason.JUDGE_UNREACHABLE: Explanation(
        "attempt",
        "The judge's endpoint did not answer, after several attempts; the answers to be judged are kept.",
        "Let pods with the label `trimtab.dev/stage: judge` out to it, or see why it does not answer.",
    ),
    Reason.JUDGE_OVERLOADED: Explanation(
        "attempt",
        "The judge's endpoint was asked too often; the answers to be judged are kept.",
        "Wait, or raise the quota of its key; the next attempt waits as long as the endpoint asks.",
    ),
    Reason.ENGINE_MISSING: _failed(
        "`engine` is Vllm, and the image that evaluates has no vLLM.",
        "Set `evaluator.image` of the chart or `spec.template.image` to an image with trainer and vLLM, or leave "
        "`engine` out.",
    ),
    Reason.ENGINE_REFUSED: _failed(
        "vLLM does not take the base model or an adapter: an architecture it does not know, DoRA, a rank above 512.",
        "Leave `engine` out; the message says what it does not take. It would not serve this adapter either.",
    ),
    Reason.ENGINE_FAILED: Explanation(
        "attempt",
        "The vLLM of the pod did not come up, ended, or did not answer; the tasks that were done count.",
        "Look at the log of the pod, which has vLLM's last words.",
    ),
    Reason.INTERRUPTED: Explanation("attempt", "The pod was told to end; the tasks that were done count.", "Nothing."),
}

_OF_FINETUNEJOBS = (
    State.TRAINING,
    Reason.TARGET_MODULES_NOT_FOUND,
    Reason.SEQUENCE_TOO_LONG,
    Reason.SPLIT_IMPOSSIBLE,
)

_ALL: dict[State | Reason | AttemptReason, Explanation] = {**_FINETUNEJOB, **_EVALUATION}
EVALUATION_EXPLANATIONS: dict[str, Explanation] = {
    each.value: told for each, told in _ALL.items() if each not in _OF_FINETUNEJOBS
}
"""Explanations of an Evaluation's `Succeeded`, by reason."""

_EXPORT: dict[State | Reason | AttemptReason, Explanation] = {
    State.PENDING: _active(
        "The FineTuneJob or the Evaluation of the source is waited for: it is still active, or there is none of this "
        "name (FineTuneJobNotFound, EvaluationNotFound). Or an object of an earlier AdapterExport of this name is "
        "still there.",
        "Nothing while the source is active. Else create what is missing, or correct the name in a new one.",
    ),
    State.SUSPENDED: _active(
        "`spec.suspend` is true, and the pod is gone.", "Set `spec.suspend: false`, and the export begins anew."
    ),
    State.EXPORTING: _active("Weights are merged and stored, one file after the other; `status.progress` moves."),
    State.PUBLISHING: _active("All weights are stored; the rest is, and all of it is read back and verified."),
    State.RETRYING: _active("An attempt ended; the next one begins anew."),
    State.COMPLETED: Explanation(
        "succeeded",
        "The model is stored and verified.",
        "Take it from `status.artifact.uri`; pin `status.artifact.digest`.",
    ),
    State.FINE_TUNE_JOB_FAILED: _failed(
        "The FineTuneJob of the source failed, so there is no adapter to export.",
        "Look at the FineTuneJob; create it and the AdapterExport again.",
    ),
    State.EVALUATION_NOT_PASSED: _failed(
        "The Evaluation of the source ended without a pass, or its target is the base model alone.",
        "Look at the Evaluation. To export the adapter all the same, name it in `source.artifact`.",
    ),
    State.SPEC_INVALID: _failed(
        "The base model cannot be read from where the source says that it is, or the FineTuneJob of the source trains "
        "a whole model (`lora.type: None`), which is one already.",
        "Name adapter and base model in `source.artifact` and `baseModel` of a new AdapterExport.",
    ),
    State.DEADLINE_EXCEEDED: _failed(
        "Pods ran for `activeDeadlineSeconds`.", "Create the AdapterExport again with a longer deadline."
    ),
    State.RETRIES_EXHAUSTED: _failed(
        "More attempts failed, or were disrupted, than `spec.retries` allows.",
        "Read the attempts' reasons; create the AdapterExport again.",
    ),
    State.SCRATCH_SPACE_EXCEEDED: _failed(
        "The pod wrote more than one of its volumes or its `ephemeral-storage` holds and was evicted.",
        "Raise what the message names, mostly `scratchSize` in the operator's settings, which holds the base model and "
        "the largest of its files again.",
    ),
    Reason.SETTINGS_INVALID: _failed(
        "The adapter does not say over which base it was trained (it was imported), or a model of this family "
        "cannot be written in the `format` that is asked for.",
        "Say so in `quantization`, or take another `format`, in a new AdapterExport.",
    ),
    Reason.BASE_MODEL_CHANGED: _failed(
        "The base model is not the one of `baseModel.digest`.", "Restore the model that the adapter was trained on."
    ),
    Reason.OUT_OF_MEMORY: _failed(
        "The memory of the container is too small for the adapter and the largest matrix.",
        "Raise `template.resources.limits.memory` in a new AdapterExport.",
    ),
    Reason.ARTIFACT_NOT_FOUND: _failed("Nothing is at the URI of the adapter.", "Correct `source.artifact`."),
    Reason.ARTIFACT_INVALID: _failed(
        "The adapter is incomplete or damaged, does not fit the base model's layers, or is more than a change of "
        "single matrices.",
        "Publish it again; one that cannot be merged can still be served.",
    ),
    Reason.ARTIFACT_CHANGED: _failed(
        "What is at the URI of the adapter has another digest than the one that was asked for.",
        "Restore the adapter, or create an AdapterExport with the digest that is there.",
    ),
    Reason.BASE_MODEL_MISMATCH: _failed(
        "The adapter was trained on another base model than `baseModel`.",
        "Set `baseModel.uri` to the model whose digest the message names.",
    ),
    Reason.INTERRUPTED: Explanation("attempt", "The pod was told to end.", "Nothing; the next attempt begins anew."),
}

EXPORT_EXPLANATIONS: dict[str, Explanation] = {
    each: told
    for each, told in {**FINETUNEJOB_EXPLANATIONS, **{k.value: v for k, v in _EXPORT.items()}}.items()
    if each in EXPORT_REASONS
}
"""Explanations of an AdapterExport's `Succeeded`, by reason."""

_PASSED: dict[PassedReason, Explanation] = {
    PassedReason.NOT_YET: _active("The evaluation is still active.", "Wait for `Succeeded`."),
    PassedReason.PASSED: Explanation("succeeded", "Every threshold is kept.", "Use the adapter."),
    PassedReason.NO_THRESHOLDS: Explanation(
        "succeeded",
        "There is no threshold, so nothing could fail: the figures were measured and not judged.",
        "Read `status.results`; set `thresholds` to make a gate of it.",
    ),
    PassedReason.THRESHOLD_MISSED: _failed(
        "A value is below its `minimum` or above its `maximum`.",
        "Read the message; train better, or set another bound.",
    ),
    PassedReason.REGRESSED: _failed(
        "A value is worse than the baseline's by more than `maximumRegression` or `maximumRelativeRegression`.",
        "Look at the losses against the baseline in the report.",
    ),
    PassedReason.GROUP_GAP: _failed(
        "The worst group is further behind the best than `maximumGroupGap` or `maximumOddsGap`, beyond chance.",
        "Look at the groups in the report; add training rows of the group that the message names.",
    ),
    PassedReason.INSUFFICIENT_ROWS: _failed(
        "With so few rows neither a pass nor a failure is certain at the `confidence` that is asked for.",
        "Evaluate on as many rows as the message says, or lower `confidence`.",
    ),
    PassedReason.METRIC_MISSING: _failed(
        "A threshold's metric could not be computed of the rows.", "Look at the task in the report; correct its rows."
    ),
    PassedReason.JUDGE_UNRELIABLE: _failed(
        "The judge of a task is not to be relied on: it agrees too little with people, goes by the order of the "
        "answers, or says nothing that can be read.",
        "Read the message; take a better judge, clearer `judging.instructions`, or look at the judgements in storage.",
    ),
    PassedReason.EVALUATION_FAILED: _failed(
        "The evaluation itself failed, so nothing is known of the adapter.", "Read the condition `Succeeded`."
    ),
}

PASSED_EXPLANATIONS: dict[str, Explanation] = {each.value: told for each, told in _PASSED.items()}
"""Explanations of an Evaluation's `Passed`, by reason."""

_WARNED: dict[WarnedReason, Explanation] = {
    WarnedReason.PREPARED_WITH_WARNINGS: Explanation(
        "succeeded",
        "Data, settings and models can be used, but something of them is probably not as it was meant.",
        "Read the message; suspend the object if what it says was not wanted.",
    ),
    WarnedReason.FINISHED_WITH_WARNINGS: Explanation(
        "succeeded", "Something is to be known of the result.", "Read the message."
    ),
}

OF_WARNED: dict[str, tuple[str, dict[str, Explanation]]] = {
    WARNED: (
        "The condition `Warned` is there only where a person should know something though nothing failed: columns that "
        "are ignored, rows that are dropped, layers that are not adapted, a pod that will not hold the run. It is an "
        "event too.",
        {each.value: told for each, told in _WARNED.items()},
    )
}
"""Explanations of `Warned`, of every kind that does work in stages."""
