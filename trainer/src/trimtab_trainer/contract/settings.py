"""The settings a user writes: the same models are the sections of the FineTuneJob and of the run configuration.

One source, so that a field of the custom resource and the setting the trainer reads cannot drift apart. Rules that
span fields are written twice, side by side: as CEL for the API server (`x-kubernetes-validations`) and as a
validator for people who run the trainer alone.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import ConfigDict, Field, model_validator

from .methods import METHOD_RULES, Method, PreferenceSettings, check_method
from .model import Model, Rule, rules

_STORED = r"s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/.*)?|file:///.*"
_REPOSITORY = r"[A-Za-z0-9][A-Za-z0-9._-]{0,95}/[A-Za-z0-9][A-Za-z0-9._-]{0,95}"
_REVISION = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
HUB_SCHEME = "hf://"
OBJECT_URI = Annotated[str, Field(min_length=6, max_length=1024, pattern=rf"^({_STORED})$")]
IMAGE_URI = r"oci://[A-Za-z0-9.-]+(:[0-9]{1,5})?/[a-z0-9]+([._/-]+[a-z0-9]+)*(:[A-Za-z0-9_][A-Za-z0-9._-]{0,127})?"
"""An image in a registry, by its tag; `latest` if that is left out."""
EXPORT_URI = Annotated[str, Field(min_length=6, max_length=1024, pattern=rf"^({_STORED}|{IMAGE_URI})$")]
MODEL_URI = Annotated[
    str,
    Field(
        min_length=6,
        max_length=1024,
        pattern=rf"^({_STORED}|hf://{_REPOSITORY}@{_REVISION}(/{_REVISION}){{0,2}})$",
    ),
]
"""Where a base model lies: in object storage, on a volume, or on a hub at a revision, which is never left out."""
DATA_URI = Annotated[
    str,
    Field(
        min_length=6,
        max_length=1024,
        pattern=rf"^({_STORED}|hf://datasets/{_REPOSITORY}@"
        rf"(refs/(convert|pr)/{_REVISION}|{_REVISION}(%2F{_REVISION}){{0,2}})(/.{{0,256}})?)$",
    ),
]
"""Where rows lie. A slash in the name of a branch is written %2F, because a path in the repository may follow."""
DEFAULT_EPOCHS = 3
"""Where neither epochs nor maxSteps is set; no static default, because then maxSteps alone could not be set."""

DIGEST = Annotated[str, Field(pattern=r"^sha256:[0-9a-f]{64}$", min_length=71, max_length=71)]


def from_hub(uri: str | None) -> bool:
    """Tell whether a URI is on a hub."""
    return uri is not None and uri.startswith(HUB_SCHEME)


class DatasetFormat(StrEnum):
    AUTO = "Auto"
    MESSAGES = "Messages"
    PROMPT_COMPLETION = "PromptCompletion"
    TEXT = "Text"
    ALPACA = "Alpaca"
    SHAREGPT = "ShareGPT"
    PREFERENCE = "Preference"
    UNPAIRED_PREFERENCE = "UnpairedPreference"


class LossOn(StrEnum):
    COMPLETIONS = "Completions"
    LAST_TURN = "LastTurn"
    ALL_TOKENS = "AllTokens"


class Schedule(StrEnum):
    CONSTANT = "Constant"
    LINEAR = "Linear"
    COSINE = "Cosine"


class Optimizer(StrEnum):
    ADAMW = "AdamW"
    ADAMW_8BIT = "AdamW8bit"
    PAGED_ADAMW_8BIT = "PagedAdamW8bit"
    SGD = "SGD"


class LoraType(StrEnum):
    LORA = "LoRA"
    NONE = "None"


class QuantizationType(StrEnum):
    NF4 = "NF4"
    NONE = "None"


class ComputeType(StrEnum):
    AUTO = "Auto"
    BFLOAT16 = "BFloat16"
    FLOAT16 = "Float16"
    FLOAT32 = "Float32"


KEY = Annotated[str, Field(min_length=1, max_length=253)]

IGNORE_KEYS: Any = Field(
    default=[],
    max_length=64,
    json_schema_extra={"x-kubernetes-list-type": "set"},
    exclude_if=lambda value: not value,
    description="ignoreKeys are keys of rows and of messages that are left out, though they mean something elsewhere.",
)
CHAT_TEMPLATE: Any = Field(
    default=None,
    exclude_if=lambda value: value is None,
    description="chatTemplate is the uri of a file with the chat template (Jinja) to use instead of the base model's; "
    "it is published with the adapter. Read with the keys of this section.",
)


class TrainingData(Model):
    """Rows to train on."""

    uri: DATA_URI = Field(
        description="uri of a file, or of a prefix that ends with '/', holding .jsonl, .json, .csv or .parquet "
        "files, plain or compressed with .gz or .zst; or hf://datasets/org/name@revision, with a file or a folder "
        "behind it."
    )


class HeldOut(Model):
    """Rows held out of training: a fraction of the training data, or data of their own."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            ("has(self.fraction) != has(self.uri)", "exactly one of fraction and uri must be set"),
        )
    )

    fraction: float | None = Field(
        default=None, gt=0, le=0.5, description="fraction of the training data's rows to hold out, in whole clusters."
    )
    uri: DATA_URI | None = Field(default=None, description="uri of held-out data, in the layout of training.uri.")

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        if (self.fraction is None) == (self.uri is None):
            raise ValueError("exactly one of fraction and uri must be set")
        return self


class Validation(Model):
    """Rows to validate on during training: a fraction, data of their own, or one fold of a cross-validation."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "[has(self.fraction), has(self.uri), has(self.folds)].filter(x, x).size() == 1",
                "exactly one of fraction, uri and folds must be set",
            ),
            ("has(self.folds) == has(self.fold)", "folds and fold must be set together"),
            ("!has(self.folds) || !has(self.fold) || self.fold < self.folds", "fold counts from 0 to folds - 1"),
        )
    )

    fraction: float | None = Field(
        default=None, gt=0, le=0.5, description="fraction of the training data's rows to hold out, in whole clusters."
    )
    uri: DATA_URI | None = Field(default=None, description="uri of validation data, in the layout of training.uri.")
    folds: int | None = Field(default=None, ge=2, le=100, description="folds the training data is divided into.")
    fold: int | None = Field(default=None, ge=0, le=99, description="fold to validate on, counted from 0.")

    @model_validator(mode="after")
    def _one_way(self) -> Self:
        if sum(value is not None for value in (self.fraction, self.uri, self.folds)) != 1:
            raise ValueError("exactly one of fraction, uri and folds must be set")
        if (self.folds is None) != (self.fold is None):
            raise ValueError("folds and fold must be set together")
        if self.folds is not None and self.fold is not None and self.fold >= self.folds:
            raise ValueError("fold counts from 0 to folds - 1")
        return self


class InitialAdapter(Model):
    """A published adapter whose weights training goes on from."""

    uri: OBJECT_URI = Field(
        description="uri of its folder, `status.artifact.uri` of the job that made it; read as the output is."
    )
    digest: DIGEST = Field(description="digest of it, `status.artifact.digest`.")


NO_MODULES_TO_SAVE = (
    "modulesToSave is not supported: it trains and publishes whole copies of layers, which engines do not serve and "
    "NF4 does not hold; name linear layers in targetModules, or parameters in targetParameters"
)
NO_DROPOUT = "targetParameters needs dropout: 0, because parameters are adapted before they meet an input"
NO_DORA = "useDora adapts linear layers alone: remove it, or targetParameters"


NOT_QUANTIZED = (
    "quantization.type must be None where lora.type is None: weights that are trained themselves cannot be held in 4 "
    "bits, where rounding undoes every step; set quantization: {type: None}, or leave lora.type out to train an adapter"
)
ONLY_SFT = (
    "training.method must be SFT where lora.type is None: DPO, KTO and ORPO compare with the model as it was, which an "
    "adapter leaves in memory and a whole model does not; leave lora.type out, or train by SFT"
)
NO_ADAPTER = "lora.type: None is no adapter, so nothing of lora means anything beside it; remove the other fields"
NULL = "null says nothing; write lora: {type: None} to train all weights, or leave lora out for an adapter"
_ADAPTED = "!has(self.lora) || !has(self.lora.type) || self.lora.type != 'None'"
FULL_RULES: tuple[Rule, ...] = (
    (f"{_ADAPTED} || (has(self.quantization) && self.quantization.type == 'None')", NOT_QUANTIZED),
    (f"{_ADAPTED} || !has(self.training) || !has(self.training.method) || self.training.method == 'SFT'", ONLY_SFT),
)
"""Of what has lora, quantization and training settings: what goes together where all weights are trained."""


class LoraSettings(Model):
    """Shape of the adapter."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                "!has(self.targetModules) || self.targetModules.size() == 1 || "
                "!self.targetModules.exists(m, m == 'all-linear')",
                "all-linear stands alone: remove it, or the other target modules",
            ),
            (
                "!has(self.targetParameters) || (has(self.dropout) && self.dropout == 0.0)",
                NO_DROPOUT,
            ),
            (
                "!has(self.targetParameters) || !has(self.useDora) || !self.useDora",
                NO_DORA,
            ),
            ("!has(self.modulesToSave)", NO_MODULES_TO_SAVE),
            (
                "!has(self.type) || self.type != 'None' || ((!has(self.rank) || self.rank == 16) && "
                "(!has(self.alpha) || self.alpha == 32.0) && (!has(self.dropout) || self.dropout == 0.05) && "
                "(!has(self.targetModules) || self.targetModules == ['all-linear']) && "
                "!has(self.targetParameters) && !has(self.initialAdapter) && "
                "(!has(self.useRslora) || !self.useRslora) && (!has(self.useDora) || !self.useDora))",
                NO_ADAPTER,
            ),
        )
    )

    type: LoraType = Field(
        default=LoraType.LORA,
        exclude_if=lambda value: value is LoraType.LORA,
        description="type is LoRA, or None: there is no adapter, and all weights of the base model are trained.",
    )
    rank: int = Field(default=16, ge=1, le=512, description="rank of the low-rank update.")
    alpha: float = Field(
        default=32.0, gt=0, le=4096, description="alpha scales the update by alpha / rank (arXiv 2106.09685, 4.1)."
    )
    dropout: float = Field(default=0.05, ge=0, lt=1, description="dropout on the adapter's input, while training.")
    target_modules: list[Annotated[str, Field(min_length=1, max_length=253)]] = Field(
        default=["all-linear"],
        min_length=1,
        max_length=64,
        json_schema_extra={"x-kubernetes-list-type": "set"},
        description="targetModules are the names of the linear layers to adapt, as module names or their last parts; "
        "all-linear means every linear layer but the output head.",
    )
    target_parameters: list[Annotated[str, Field(min_length=1, max_length=253)]] | None = Field(
        default=None,
        min_length=1,
        max_length=64,
        json_schema_extra={"x-kubernetes-list-type": "set"},
        description="targetParameters are the names of parameters to adapt beside the target modules, or their last "
        "parts: the joined tensors of a mixture's experts, as experts.gate_up_proj and experts.down_proj. They need "
        "dropout: 0.",
    )
    use_rslora: bool = Field(
        default=False,
        exclude_if=lambda value: not value,
        description="useRslora scales the update by alpha / sqrt(rank) instead (rsLoRA, arXiv 2312.03732).",
    )
    use_dora: bool = Field(
        default=False,
        exclude_if=lambda value: not value,
        description="useDora learns the magnitude of the weights apart from their direction (DoRA, arXiv 2402.09353); "
        "vLLM does not serve it.",
    )
    initial_adapter: InitialAdapter | None = Field(
        default=None,
        description="initialAdapter to go on from, of the same base model, rank and modules; absent: a fresh one.",
    )
    modules_to_save: list[Annotated[str, Field(min_length=1, max_length=253)]] | None = Field(
        default=None,
        max_length=64,
        json_schema_extra={"x-kubernetes-list-type": "set"},
        description="modulesToSave is refused; the message says why.",
    )

    @model_validator(mode="after")
    def _nothing_beside_none(self) -> Self:
        if self.type is LoraType.NONE and self.model_dump(exclude={"type"}) != _DEFAULTS:
            raise ValueError(NO_ADAPTER)
        return self

    @model_validator(mode="after")
    def _parameters_alone(self) -> Self:
        if self.modules_to_save is not None:
            raise ValueError(NO_MODULES_TO_SAVE)
        if self.target_parameters is None:
            return self
        if self.dropout:
            raise ValueError(NO_DROPOUT)
        if self.use_dora:
            raise ValueError(NO_DORA)
        if len(set(self.target_parameters)) != len(self.target_parameters):
            raise ValueError("targetParameters must not repeat a name")
        return self

    @model_validator(mode="after")
    def _all_linear_alone(self) -> Self:
        if "all-linear" in self.target_modules and len(self.target_modules) > 1:
            raise ValueError("all-linear stands alone: remove it, or the other target modules")
        if len(set(self.target_modules)) != len(self.target_modules):
            raise ValueError("targetModules must not repeat a name")
        return self


_DEFAULTS = LoraSettings().model_dump()


class QuantizationSettings(Model):
    """How the frozen base model is held in memory."""

    type: QuantizationType = Field(
        default=QuantizationType.NF4, description="type is NF4 (QLoRA, arXiv 2305.14314), or None for plain LoRA."
    )
    double_quantization: bool = Field(
        default=True, description="doubleQuantization quantizes the quantization constants too: 4.13 bits a weight."
    )
    compute_type: ComputeType = Field(
        default=ComputeType.AUTO,
        description="computeType is the type of the matrix products; Auto takes BFloat16 where the processor has it "
        "in hardware, else Float16 on an accelerator, else Float32.",
    )


class EarlyStopping(Model):
    """When to stop before the last step; the best checkpoint by validation loss is what is published."""

    patience: int = Field(default=3, ge=1, le=1000, description="patience in evaluations without improvement.")
    minimum_improvement: float = Field(
        default=0.001, ge=0, le=10, description="minimumImprovement in nats per supervised token."
    )


class TrainingSettings(Model):
    """The training run."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            ("!(has(self.epochs) && has(self.maxSteps))", "set epochs or maxSteps, not both"),
            (
                "!has(self.microBatchSize) || (self.microBatchSize <= self.batchSize && "
                "self.batchSize % self.microBatchSize == 0)",
                "batchSize must be a multiple of microBatchSize",
            ),
            *METHOD_RULES,
        )
    )

    method: Method = Field(
        default=Method.SFT,
        exclude_if=lambda value: value is Method.SFT,
        description="method is what is learned from: SFT answers; DPO and ORPO pairs of a chosen and a rejected one; "
        "KTO answers that are labelled as wanted or not.",
    )
    preference: PreferenceSettings | None = Field(
        default=None,
        exclude_if=lambda value: value is None,
        description="preference shapes the loss of DPO, KTO and ORPO; absent: its defaults.",
    )
    epochs: int | None = Field(
        default=None,
        ge=1,
        le=1000,
        description=f"epochs over the training data; {DEFAULT_EPOCHS} if maxSteps is absent too.",
    )
    max_steps: int | None = Field(
        default=None, ge=1, le=10_000_000, description="maxSteps counts optimizer steps, instead of epochs."
    )
    batch_size: int = Field(
        default=32,
        ge=1,
        le=65536,
        description="batchSize is the number of rows (packed rows when packing; pairs of DPO and ORPO) that a step of "
        "the optimizer sees.",
    )
    micro_batch_size: int | None = Field(
        default=None,
        ge=1,
        le=65536,
        description="microBatchSize is the number of rows of one forward pass; derived from the memory if absent. "
        "It does not change the gradient, only memory and speed.",
    )
    learning_rate: float = Field(default=2e-4, gt=0, lt=1, description="learningRate at the schedule's peak.")
    schedule: Schedule = Field(default=Schedule.COSINE, description="schedule of the learning rate after warm-up.")
    warmup_ratio: float = Field(
        default=0.03, ge=0, le=0.5, description="warmupRatio of the steps over which the learning rate rises linearly."
    )
    optimizer: Optimizer = Field(default=Optimizer.ADAMW, description="optimizer of the adapter's weights.")
    weight_decay: float = Field(default=0.0, ge=0, le=1, description="weightDecay, decoupled for the AdamW family.")
    max_gradient_norm: float = Field(
        default=1.0, ge=0, le=1000, description="maxGradientNorm clips the global gradient norm; 0 turns it off."
    )
    max_sequence_length: int = Field(
        default=1024,
        ge=8,
        le=1_048_576,
        description="maxSequenceLength in tokens; longer rows are dropped and counted.",
    )
    packing: bool = Field(
        default=True,
        description="packing puts several rows into one sequence, of DPO and ORPO the two of a pair; rows never attend "
        "to each other.",
    )
    loss_on: LossOn = Field(
        default=LossOn.COMPLETIONS,
        description="lossOn says which tokens are learned: the assistant's, those of its last turn, or all.",
    )
    seed: int = Field(default=17, ge=0, le=2_147_483_647, description="seed of initialisation, order and dropout.")
    evaluate_every_steps: int = Field(
        default=50, ge=1, le=1_000_000, description="evaluateEverySteps between validations, and one at the end."
    )
    early_stopping: EarlyStopping | None = Field(default=None, description="earlyStopping; absent: off.")

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.epochs is not None and self.max_steps is not None:
            raise ValueError("set epochs or maxSteps, not both")
        if self.micro_batch_size is not None and self.batch_size % self.micro_batch_size:
            raise ValueError("batchSize must be a multiple of microBatchSize")
        check_method(self.method, self.preference, completions_only=self.loss_on is LossOn.COMPLETIONS)
        return self

    @property
    def preferences(self) -> PreferenceSettings:
        """What shapes the loss of a preference method, with its defaults where nothing is said of it."""
        return self.preference or PreferenceSettings()


class CheckpointSettings(Model):
    """How much work an interruption may cost."""

    every_steps: int = Field(default=50, ge=1, le=1_000_000, description="everySteps between checkpoints.")
    keep: int = Field(default=2, ge=1, le=100, description="keep this many checkpoints beside the best.")


def check_full(lora: LoraSettings, quantization: QuantizationSettings, method: Method) -> None:
    """Check what `FULL_RULES` say.

    Raises:
        ValueError: they do not go together.
    """
    if lora.type is not LoraType.NONE:
        return
    if quantization.type is not QuantizationType.NONE:
        raise ValueError(NOT_QUANTIZED)
    if method is not Method.SFT:
        raise ValueError(ONLY_SFT)
