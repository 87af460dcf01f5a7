"""FineTuneJob: one run, from data in object storage to one immutable adapter, or to a whole model."""

from __future__ import annotations

from typing import Annotated, Any, Self, get_args

from pydantic import ConfigDict, Field, computed_field, model_validator
from pydantic.alias_generators import to_camel
from trimtab_trainer.contract import (
    COLUMN,
    Balance,
    CheckpointSettings,
    Cleaning,
    DataAudit,
    DatasetFormat,
    HeldOut,
    LoraSettings,
    Model,
    QuantizationSettings,
    TrainingData,
    TrainingSettings,
    Validation,
)
from trimtab_trainer.contract.curve import POINTS
from trimtab_trainer.contract.methods import DATA_RULES
from trimtab_trainer.contract.model import Rule, rules
from trimtab_trainer.contract.settings import (
    CHAT_TEMPLATE,
    DIGEST,
    FULL_RULES,
    IGNORE_KEYS,
    KEY,
    MODEL_URI,
    OBJECT_URI,
    LoraType,
    check_full,
)

from .definitions.customresource import AGE, OF_SUCCEEDED, CustomObject, CustomResource, condition_path
from .pods.scheduling import ATOMIC
from .pods.template import PodTemplate
from .status.conditions import SUCCEEDED
from .status.reasons import FINETUNEJOB_EXPLANATIONS, OF_WARNED
from .tracking import OF_TRACKED, Tracking
from .work import RetryBudgets, WorkStatus

GROUP = "trimtab.dev"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
NODES_MAXIMUM = 64
OWN_CLAIMS = (
    "several nodes cannot share the accelerators of one claim: set resourceClaimTemplateName, so that each pod has its "
    "own, or accelerators: 0 where the claim has none"
)
NAME_LENGTH = 45
"""Children add up to 18 characters to the name, and a Job's name may have 63."""
_KEYS = (
    "secretName of a Secret with AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and optionally AWS_SESSION_TOKEN, "
    "AWS_ENDPOINT_URL, AWS_REGION (or AWS_DEFAULT_REGION), AWS_S3_ADDRESSING_STYLE (path, virtual or auto) and "
    "AWS_CA_BUNDLE; absent: the pod's workload identity."
)
_OF_A_HUB = " Of a source on a hub (hf://): with HF_TOKEN, HF_ENDPOINT or both; the pod that mirrors alone mounts it."
_NAME = Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
SECRET_NAME = Annotated[str, _NAME, Field(description=_KEYS)]
SOURCE_SECRET_NAME = Annotated[str, _NAME, Field(description=_KEYS + _OF_A_HUB)]


FREE = frozenset({"secretName", "microBatchSize"})
"""Fields within frozen ones that do not define the result: the next attempt takes them as they are then."""

Fields = dict[str, "Fields | None"]
"""The fields of a section that are compared, each with its own; None: as a whole."""


def unchanged(types: dict[str, Any], kind: str = "FineTuneJob") -> list[Rule]:
    """Return the rules that freeze fields, set or absent, but for what is free in them.

    A transition rule on the field alone is skipped when the field is added or removed, so it stands at the parent.

    Args:
        types: the type of each field to freeze, by its name.
    """
    frozen = []
    for name, type_of in types.items():
        fields, free = _compared(type_of)
        but = f", but for {' and '.join(sorted(free))}" if free else ""
        message = f"{name} is immutable{but}: it defines the result; create another {kind} instead"
        frozen.append((_same(name, fields), message))
    return frozen


def _compared(type_of: Any) -> tuple[Fields | None, set[str]]:
    """Return the fields of a type to compare, None if nothing in it is free, and the names of what is free."""
    model = next((each for each in (type_of, *get_args(type_of)) if isinstance(each, type)), None)
    if model is None or not issubclass(model, Model):
        return None, set()
    fields: Fields = {}
    free: set[str] = set()
    for name, field in model.model_fields.items():
        key = field.alias or to_camel(name)
        if key in FREE:
            free.add(key)
        else:
            fields[key], inner = _compared(field.annotation)
            free |= inner
    return (fields if free else None), free


def _same(field: str, fields: Fields | None) -> str:
    """Return the condition that a field is what it was, or is absent as it was."""
    inside = f"self.{field} == oldSelf.{field}"
    if fields is not None:
        inside = " && ".join(f"({_same(f'{field}.{name}', each)})" for name, each in fields.items())
    return f"has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || {inside})"


class BaseModelSource(Model):
    """The model that the adapter is made for."""

    uri: MODEL_URI = Field(
        description="uri of the folder with config.json, the tokenizer and the safetensors files: s3://bucket/prefix, "
        "file:///path on a volume of the template, or hf://org/name@revision, which is mirrored into the output."
    )
    digest: DIGEST | None = Field(default=None, description="digest the model must have; recorded in status if absent.")
    secret_name: SOURCE_SECRET_NAME | None = None


class DatasetSource(Model):
    """The rows, where they come from and what is held out."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            *(
                (
                    f"!has(self.{side}) || !has(self.{side}.uri) || "
                    f"self.{side}.uri.startsWith('hf://') == self.training.uri.startsWith('hf://')",
                    f"{side}.uri and training.uri are both on a hub (hf://) or neither is: their keys are one Secret",
                )
                for side in ("validation", "test")
            )
        )
    )

    format: DatasetFormat = Field(
        default=DatasetFormat.AUTO,
        description="format of the rows: Messages {messages: [{role, content}]}, with tools and tool_calls where there "
        "are such; PromptCompletion {prompt, completion}; Text {text}; Alpaca {instruction, input, output}; ShareGPT "
        "{conversations: [{from, value}]}; Preference {prompt, chosen, rejected} for training.method DPO and ORPO; "
        "UnpairedPreference {prompt, completion, label} for KTO. Auto takes what the method takes, and tells those of "
        "SFT apart by their keys. A string column group keeps rows together when rows are held out.",
    )
    ignore_keys: list[KEY] = IGNORE_KEYS
    chat_template: OBJECT_URI | None = CHAT_TEMPLATE
    training: TrainingData = Field(description="training data.")
    validation: Validation | None = Field(default=None, description="validation data, measured while training.")
    test: HeldOut | None = Field(
        default=None, description="test data, held out of training and published beside the adapter."
    )
    split_seed: int = Field(
        default=17, ge=0, le=2_147_483_647, description="splitSeed chooses which rows are held out."
    )
    group_by: COLUMN | None = Field(
        default=None,
        description="groupBy is the column that keeps rows together when rows are held out; group if absent.",
    )
    stratify_by: COLUMN | None = Field(
        default=None,
        description="stratifyBy is a column of which every value has its share of each side, at most 1000 values.",
    )
    cleaning: Cleaning | None = Field(
        default=None, description="cleaning says what is dropped before anything is learned; absent: its defaults."
    )
    balance: Balance | None = Field(
        default=None, description="balance makes groups of the training rows count alike; absent: as they are."
    )
    audit: DataAudit | None = Field(
        default=None, description="audit says by which columns the rows are counted, and how small a group may be."
    )
    secret_name: SOURCE_SECRET_NAME | None = None


class OutputTarget(Model):
    """Where prepared data, checkpoints and adapters go."""

    uri: OBJECT_URI = Field(description="uri of a prefix that the job may write to.")
    secret_name: SECRET_NAME | None = None


class FineTuneJobSpec(Model):
    """What to train, on what, and within which limits."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            *unchanged(
                {
                    "baseModel": BaseModelSource,
                    "dataset": DatasetSource,
                    "output": OutputTarget,
                    "lora": LoraSettings,
                    "quantization": QuantizationSettings,
                    "training": TrainingSettings,
                }
            ),
            (
                "!has(self.training) || !has(self.training.earlyStopping) || has(self.dataset.validation)",
                "training.earlyStopping needs dataset.validation",
            ),
            (
                "!has(self.nodes) || self.nodes == 1 || !has(self.template) || !has(self.template.resourceClaims) || "
                "!has(self.template.resources) || !has(self.template.resources.claims) || "
                "!self.template.resources.claims.exists(c, self.template.resourceClaims.exists(r, r.name == c.name && "
                "has(r.resourceClaimName) && (!has(r.accelerators) || r.accelerators > 0)))",
                OWN_CLAIMS,
            ),
            *DATA_RULES,
            *FULL_RULES,
        )
    )

    base_model: BaseModelSource = Field(description="baseModel to adapt.")
    dataset: DatasetSource = Field(description="dataset to learn from.")
    output: OutputTarget = Field(description="output for data, checkpoints and adapters.")
    lora: LoraSettings = Field(default=LoraSettings(), description="lora shapes the adapter; type: None is none.")
    quantization: QuantizationSettings = Field(
        default=QuantizationSettings(), description="quantization of the frozen base model."
    )
    training: TrainingSettings = Field(default=TrainingSettings(), description="training settings.")
    checkpoint: CheckpointSettings = Field(default=CheckpointSettings(), description="checkpoint settings.")
    retries: RetryBudgets = Field(default=RetryBudgets(), description="retries before the job fails.")
    suspend: bool = Field(
        default=False, description="suspend stops the job after a checkpoint; false goes on from there."
    )
    active_deadline_seconds: int | None = Field(
        default=None,
        ge=1,
        le=31_536_000,
        description="activeDeadlineSeconds bounds the time with a running pod, over all attempts; waiting and "
        "suspended time do not count.",
    )
    ttl_seconds_after_finished: int | None = Field(
        default=None,
        ge=0,
        le=315_360_000,
        description="ttlSecondsAfterFinished after which the FineTuneJob is deleted; what it published stays. It "
        "waits for Evaluations and AdapterExports that name the FineTuneJob and have not taken what they need from it.",
    )
    nodes: int = Field(
        default=1,
        ge=1,
        le=NODES_MAXIMUM,
        description="nodes is how many pods train together, each with the template's resources; like these it does "
        "not define the result, and the next attempt takes what it is then.",
    )
    tracking: Tracking | None = Field(
        default=None, description="tracking: the tracker that is told what the run measures."
    )
    template: PodTemplate = Field(default=PodTemplate(), description="template of the pods.")

    @model_validator(mode="after")
    def _full(self) -> Self:
        check_full(self.lora, self.quantization, self.training.method)
        return self

    @property
    def full(self) -> bool:
        """Whether all weights of the base model are trained, and there is no adapter."""
        return self.lora.type is LoraType.NONE


class TrainingProgress(Model):
    """How far the run is."""

    step: int | None = Field(default=None, ge=0, description="step that was finished last.")
    total_steps: int | None = Field(default=None, ge=0, description="totalSteps of the run.")
    percent: int | None = Field(default=None, ge=0, le=100, description="percent of the steps that are done.")
    loss: float | None = Field(default=None, description="loss in nats per supervised token, of the last steps.")
    validation_loss: float | None = Field(default=None, description="validationLoss in nats per supervised token.")
    tokens_per_second: float | None = Field(default=None, description="tokensPerSecond of the last steps.")
    eta_seconds: int | None = Field(default=None, ge=0, description="etaSeconds until the last step.")
    world_size: int | None = Field(
        default=None, ge=2, description="worldSize: processes that train, each on its accelerator; absent: one."
    )


class CurveStatus(Model):
    """Both curves of the run, thinned until they are small; all of them are in the adapter's report.html."""

    steps: list[Annotated[int, Field(ge=0)]] = Field(
        default=[], max_length=POINTS, json_schema_extra=ATOMIC, description="steps of the values of loss."
    )
    loss: list[float] = Field(
        default=[],
        max_length=POINTS,
        json_schema_extra=ATOMIC,
        description="loss in nats per supervised token, a mean over the steps since the value before.",
    )
    validation_steps: list[Annotated[int, Field(ge=0)]] = Field(
        default=[],
        max_length=POINTS,
        json_schema_extra=ATOMIC,
        description="validationSteps are the steps of the values of validationLoss.",
    )
    validation_loss: list[float] = Field(
        default=[],
        max_length=POINTS,
        json_schema_extra=ATOMIC,
        description="validationLoss in nats per supervised token.",
    )


class DatasetStatus(Model):
    """What preparing found."""

    digest: DIGEST = Field(description="digest of the prepared view: rows, split, length and packing.")
    rows_digest: DIGEST = Field(description="rowsDigest of the tokenised rows.")
    rows: int = Field(ge=0, description="rows that are trained on.")
    validation_rows: int = Field(default=0, ge=0, description="validationRows held out.")
    validation_digest: DIGEST | None = Field(
        default=None, description="validationDigest of what the rows held out for validation say, whatever the tokens."
    )
    validation_bytes: int | None = Field(
        default=None, ge=0, description="validationBytes of what is learned of them, as UTF-8 text."
    )
    validation_supervised_tokens: int | None = Field(
        default=None, ge=0, description="validationSupervisedTokens, those with a loss."
    )
    test_rows: int = Field(default=0, ge=0, description="testRows held out.")
    tokens: int = Field(ge=0, description="tokens that are trained on, per epoch.")
    supervised_tokens: int = Field(default=0, ge=0, description="supervisedTokens, those with a loss, per epoch.")
    dropped: int = Field(default=0, ge=0, description="dropped rows: by cleaning, or for their length.")
    report_uri: str | None = Field(
        default=None, alias="reportURI", max_length=1200, description="reportURI of data.html: what became of the rows."
    )


class CheckpointStatus(Model):
    """The newest checkpoint in object storage."""

    step: int = Field(ge=0, description="step of the checkpoint.")
    time: str | None = Field(
        default=None, max_length=32, json_schema_extra={"format": "date-time"}, description="time it was written."
    )


class ArtifactStatus(Model):
    """The adapter that was published, or the model."""

    uri: str = Field(max_length=1200, description="uri of its folder.")
    digest: DIGEST = Field(description="digest of what defines its behaviour.")
    rank: int | None = Field(default=None, ge=1, description="rank of the adapter; absent: it is a whole model.")
    target_modules: list[Annotated[str, Field(max_length=253)]] = Field(
        default=[],
        max_length=64,
        json_schema_extra={"x-kubernetes-list-type": "set"},
        description="targetModules that were adapted.",
    )
    base_model_digest: DIGEST = Field(description="baseModelDigest the adapter belongs to, or the model began as.")
    test_loss: float | None = Field(default=None, description="testLoss on the test split, in nats per token.")
    base_test_loss: float | None = Field(default=None, description="baseTestLoss of the base model alone.")
    report_uri: str | None = Field(
        default=None, alias="reportURI", max_length=1200, description="reportURI of report.html: how the run went."
    )


class StatusSummary(Model):
    """What `kubectl get` prints: for people, derived from the rest of the status."""

    progress: str | None = Field(default=None, max_length=8, description="progress in percent, such as 42%.")
    loss: str | None = Field(default=None, max_length=16, description="loss with three decimals.")
    step: str | None = Field(default=None, max_length=32, description="step done last, of all, such as 18/43.")
    adapter: str | None = Field(default=None, max_length=12, description="adapter's digest, its first 12 characters.")

    @classmethod
    def of(cls, progress: TrainingProgress | None, artifact: ArtifactStatus | None) -> StatusSummary | None:
        """Return the summary of these sections, or None if there is nothing to print."""
        now = progress or TrainingProgress()
        of_all = f"/{now.total_steps}" if now.total_steps else ""
        summary = cls(
            progress=None if now.percent is None else f"{now.percent}%",
            loss=None if now.loss is None else f"{now.loss:.3f}"[:16],
            step=None if now.step is None else f"{now.step}{of_all}"[:32],
            adapter=None if artifact is None else artifact.digest.removeprefix("sha256:")[:12],
        )
        return summary if summary != cls() else None


class FineTuneJobStatus(WorkStatus):
    """What is known of the run; rows live in object storage."""

    progress: TrainingProgress | None = Field(default=None, description="progress of the run.")
    curve: CurveStatus | None = Field(default=None, description="curve of the losses, over all attempts.")
    base_model_digest: DIGEST | None = Field(default=None, description="baseModelDigest that was found.")
    run_digest: DIGEST | None = Field(default=None, description="runDigest of everything that defines the result.")
    dataset: DatasetStatus | None = Field(default=None, description="dataset as it was prepared.")
    checkpoint: CheckpointStatus | None = Field(default=None, description="checkpoint that an attempt resumes from.")
    artifact: ArtifactStatus | None = Field(default=None, description="artifact that was published.")

    @computed_field(  # type: ignore[prop-decorator]  # mypy knows no property that is decorated
        description="summary is what kubectl get prints; programs read the other fields."
    )
    @property
    def summary(self) -> StatusSummary | None:
        """Derived: written with the rest and never read back."""
        return StatusSummary.of(self.progress, self.artifact)


class FineTuneJob(CustomObject):
    """FineTuneJob trains one LoRA adapter from data in object storage and publishes it."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (f"self.metadata.name.size() <= {NAME_LENGTH}", f"name must have at most {NAME_LENGTH} characters"),
            (
                "!has(self.spec.nodes) || self.spec.nodes == 1 || !self.metadata.name.contains('.')",
                "name must have no dots where spec.nodes is more than 1: the host names of the pods are made of it",
            ),
        ),
    )

    spec: FineTuneJobSpec = Field(description="spec is what to train, on what, and within which limits.")
    status: FineTuneJobStatus = Field(default=FineTuneJobStatus(), description="status is what is known of the run.")


FINETUNEJOB = CustomResource(
    model=FineTuneJob,
    spec=FineTuneJobSpec,
    status=FineTuneJobStatus,
    plural="finetunejobs",
    short_name="ftj",
    columns=(
        ("State", "string", condition_path(SUCCEEDED, "reason"), "What the job is doing, or how it ended."),
        ("Progress", "string", ".status.summary.progress", "Optimizer steps done, in percent."),
        ("Loss", "string", ".status.summary.loss", "Training loss in nats per supervised token."),
        ("Step", "string", ".status.summary.step", "Optimizer steps done, of all."),
        ("Adapter", "string", ".status.summary.adapter", "First 12 characters of the adapter's digest."),
        AGE,
    ),
    wide_columns=(
        ("Message", "string", condition_path(SUCCEEDED, "message"), "Why, and what to do next."),
        ("Attempt", "integer", ".status.attempts[-1:].number", "Number of the newest attempt."),
        ("Rank", "integer", ".status.artifact.rank", "Rank of the adapter; a whole model has none."),
        ("Data", "string", ".status.dataset.reportURI", "Where data.html is."),
        ("Report", "string", ".status.artifact.reportURI", "Where report.html is."),
    ),
    summary=SUCCEEDED,
    writers="Who may create them may create pods with any Secret and any service account of the namespace.",
    reasons={SUCCEEDED: (OF_SUCCEEDED, FINETUNEJOB_EXPLANATIONS), **OF_WARNED, **OF_TRACKED},
)
