"""Evaluations: the settings a user writes, the configuration the trainer reads, and what it answers.

As in `settings`, one source for the custom resource and the trainer. What the trainer answers are facts, estimates with
their uncertainty; whether they are good enough is decided by the operator.
"""

from __future__ import annotations

import base64
import decimal
import json
import zlib
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import ConfigDict, Field, field_validator, model_validator

from .gate.figures import WHOLE
from .judging import JudgeMode, Judging, StoredJudge
from .model import Model, Received, rules, speaks
from .run import Credentials, RunIdentity, StoredBaseModel, StoredOutput
from .settings import DATA_URI, DIGEST, KEY, OBJECT_URI, DatasetFormat, QuantizationSettings, from_hub

EVALUATION_VERSION = "trimtab.dev/evaluation/v1"
MAXIMUM_TASKS = 50
MAXIMUM_THRESHOLDS = 32
MAXIMUM_LABELS = 200
MAXIMUM_SCHEMA, MAXIMUM_PATTERN = 16_384, 1_024

DEFAULT_NEW_TOKENS = 128
DEFAULT_GROUP_ROWS = 30
DEFAULT_GAP_CONFIDENCE = 0.95
OUTCOME_BYTES = 1 << 18
"""Of a packed outcome, before it is packed into a termination message of 4 kB: more was not written by `pack`."""
UNRELIABLE_LENGTH = 400
OTHER_GROUPS = "other"
"""Name of the group that small groups are pooled into."""

TASK_NAME = Annotated[str, Field(min_length=1, max_length=40, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
METRIC_PATH = Annotated[
    str,
    Field(
        min_length=3,
        max_length=104,
        pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?/[A-Za-z][A-Za-z0-9_]*$",
    ),
]
LABEL = Annotated[str, Field(min_length=1, max_length=256)]


class TaskType(StrEnum):
    PERPLEXITY = "Perplexity"
    GENERATION = "Generation"
    CLASSIFICATION = "Classification"
    MULTIPLE_CHOICE = "MultipleChoice"
    REGRESSION = "Regression"
    PREFERENCE = "Preference"
    TOOL_CALLS = "ToolCalls"
    JSON_SCHEMA = "JsonSchema"
    REGEX = "Regex"
    REFUSAL = "Refusal"
    JUDGE = "Judge"
    HARNESS = "Harness"


class Metric(StrEnum):
    """A family of figures; `RESULTS` names the figures of each."""

    PERPLEXITY = "Perplexity"
    BITS_PER_BYTE = "BitsPerByte"
    EXACT_MATCH = "ExactMatch"
    TOKEN_F1 = "TokenF1"
    ROUGE_L = "RougeL"
    BLEU = "BLEU"
    CHRF = "ChrF"
    ACCURACY = "Accuracy"
    ACCURACY_NORMALIZED = "AccuracyNormalized"
    PRECISION = "Precision"
    RECALL = "Recall"
    F1 = "F1"
    MEAN_SQUARED_ERROR = "MeanSquaredError"
    MEAN_ABSOLUTE_ERROR = "MeanAbsoluteError"
    UNPARSABLE_RATIO = "UnparsableRatio"
    PAIR_ACCURACY = "PairAccuracy"
    PAIR_ACCURACY_NORMALIZED = "PairAccuracyNormalized"
    PAIR_MARGIN = "PairMargin"
    REWARD_ACCURACY = "RewardAccuracy"
    REWARD_MARGIN = "RewardMargin"
    TRUNCATED_RATIO = "TruncatedRatio"
    BRIER_SCORE = "BrierScore"
    CALIBRATION_ERROR = "CalibrationError"
    VALID_RATIO = "ValidRatio"
    NAME_ACCURACY = "NameAccuracy"
    ARGUMENTS_ACCURACY = "ArgumentsAccuracy"
    MATCH_RATIO = "MatchRatio"
    REFUSED_RATIO = "RefusedRatio"
    WRONGLY_REFUSED_RATIO = "WronglyRefusedRatio"
    WIN_RATE = "WinRate"
    JUDGE_SCORE = "JudgeScore"
    INCONSISTENT_RATIO = "InconsistentRatio"
    UNREADABLE_RATIO = "UnreadableRatio"
    AGREEMENT = "Agreement"
    TOKENS_PER_ANSWER = "TokensPerAnswer"
    SECONDS_PER_ANSWER = "SecondsPerAnswer"
    CHANGED_RATIO = "ChangedRatio"


RESULTS: dict[Metric, tuple[str, ...]] = {
    Metric.PERPLEXITY: ("perplexity",),
    Metric.BITS_PER_BYTE: ("bitsPerByte",),
    Metric.EXACT_MATCH: ("exactMatch",),
    Metric.TOKEN_F1: ("tokenF1",),
    Metric.ROUGE_L: ("rougeL",),
    Metric.BLEU: ("bleu",),
    Metric.CHRF: ("chrF",),
    Metric.ACCURACY: ("accuracy",),
    Metric.ACCURACY_NORMALIZED: ("accuracyNormalized",),
    Metric.PRECISION: ("precisionMacro", "precisionMicro"),
    Metric.RECALL: ("recallMacro", "recallMicro"),
    Metric.F1: ("f1Macro", "f1Micro"),
    Metric.MEAN_SQUARED_ERROR: ("meanSquaredError",),
    Metric.MEAN_ABSOLUTE_ERROR: ("meanAbsoluteError",),
    Metric.UNPARSABLE_RATIO: ("unparsableRatio",),
    Metric.PAIR_ACCURACY: ("pairAccuracy",),
    Metric.PAIR_ACCURACY_NORMALIZED: ("pairAccuracyNormalized",),
    Metric.PAIR_MARGIN: ("pairMargin",),
    Metric.REWARD_ACCURACY: ("rewardAccuracy",),
    Metric.REWARD_MARGIN: ("rewardMargin",),
    Metric.TRUNCATED_RATIO: ("truncatedRatio",),
    Metric.BRIER_SCORE: ("brierScore",),
    Metric.CALIBRATION_ERROR: ("calibrationError",),
    Metric.VALID_RATIO: ("validRatio",),
    Metric.NAME_ACCURACY: ("nameAccuracy",),
    Metric.ARGUMENTS_ACCURACY: ("argumentsAccuracy",),
    Metric.MATCH_RATIO: ("matchRatio",),
    Metric.REFUSED_RATIO: ("refusedRatio",),
    Metric.WRONGLY_REFUSED_RATIO: ("wronglyRefusedRatio",),
    Metric.WIN_RATE: ("winRate",),
    Metric.JUDGE_SCORE: ("judgeScore",),
    Metric.INCONSISTENT_RATIO: ("inconsistentRatio",),
    Metric.UNREADABLE_RATIO: ("unreadableRatio",),
    Metric.AGREEMENT: ("agreement",),
    Metric.TOKENS_PER_ANSWER: ("tokensPerAnswer",),
    Metric.SECONDS_PER_ANSWER: ("secondsPerAnswer",),
    Metric.CHANGED_RATIO: ("changedRatio",),
}
"""Names of the figures, as thresholds and results spell them: `<task>/<name>`. Averages are always named."""

OF_ANSWERS = (Metric.TRUNCATED_RATIO, Metric.TOKENS_PER_ANSWER, Metric.SECONDS_PER_ANSWER)
"""Metrics of how an answer was written, whatever it says."""

METRICS_OF: dict[TaskType, tuple[Metric, ...]] = {
    TaskType.PERPLEXITY: (Metric.PERPLEXITY, Metric.BITS_PER_BYTE),
    TaskType.GENERATION: (
        Metric.ROUGE_L,
        Metric.EXACT_MATCH,
        Metric.TOKEN_F1,
        Metric.BLEU,
        Metric.CHRF,
        *OF_ANSWERS,
        Metric.CHANGED_RATIO,
    ),
    TaskType.CLASSIFICATION: (
        Metric.ACCURACY,
        Metric.F1,
        Metric.PRECISION,
        Metric.RECALL,
        Metric.BRIER_SCORE,
        Metric.CALIBRATION_ERROR,
        Metric.CHANGED_RATIO,
    ),
    TaskType.MULTIPLE_CHOICE: (
        Metric.ACCURACY,
        Metric.ACCURACY_NORMALIZED,
        Metric.BRIER_SCORE,
        Metric.CALIBRATION_ERROR,
        Metric.CHANGED_RATIO,
    ),
    TaskType.REGRESSION: (
        Metric.MEAN_ABSOLUTE_ERROR,
        Metric.MEAN_SQUARED_ERROR,
        Metric.UNPARSABLE_RATIO,
        *OF_ANSWERS,
        Metric.CHANGED_RATIO,
    ),
    TaskType.PREFERENCE: (
        Metric.PAIR_ACCURACY,
        Metric.PAIR_ACCURACY_NORMALIZED,
        Metric.PAIR_MARGIN,
        Metric.REWARD_ACCURACY,
        Metric.REWARD_MARGIN,
    ),
    TaskType.TOOL_CALLS: (
        Metric.EXACT_MATCH,
        Metric.VALID_RATIO,
        Metric.NAME_ACCURACY,
        Metric.ARGUMENTS_ACCURACY,
        *OF_ANSWERS,
    ),
    TaskType.JSON_SCHEMA: (Metric.VALID_RATIO, Metric.EXACT_MATCH, *OF_ANSWERS),
    TaskType.REGEX: (Metric.MATCH_RATIO, *OF_ANSWERS),
    TaskType.REFUSAL: (
        Metric.REFUSED_RATIO,
        Metric.WRONGLY_REFUSED_RATIO,
        *OF_ANSWERS,
        Metric.CHANGED_RATIO,
    ),
    TaskType.JUDGE: (
        Metric.WIN_RATE,
        Metric.JUDGE_SCORE,
        Metric.INCONSISTENT_RATIO,
        Metric.UNREADABLE_RATIO,
        Metric.AGREEMENT,
        *OF_ANSWERS,
    ),
    TaskType.HARNESS: (),
}
"""Metrics that apply to a type, the headline first. A harness task names its own."""

BY_NAME_ALONE = frozenset({Metric.SECONDS_PER_ANSWER})
"""Metrics that are computed where `metrics` names them; all others are the default. Seconds are of a machine: no other
evaluation shares them, and answers are written one at a time."""

OF_PAIRS = frozenset({Metric.WIN_RATE, Metric.INCONSISTENT_RATIO})
OF_SCORES = frozenset({Metric.JUDGE_SCORE})
"""Metrics of one mode of a judge."""

OF_PROBABILITIES = frozenset({Metric.BRIER_SCORE, Metric.CALIBRATION_ERROR})
"""Metrics of the probabilities of labels or choices, which a generated answer has none of."""

LOWER_IS_BETTER = frozenset(
    {
        "perplexity",
        "bitsPerByte",
        "meanSquaredError",
        "meanAbsoluteError",
        "unparsableRatio",
        "truncatedRatio",
        "brierScore",
        "calibrationError",
        "tokensPerAnswer",
        "secondsPerAnswer",
        "wronglyRefusedRatio",
        "inconsistentRatio",
        "unreadableRatio",
        "changedRatio",
    }
)
"""Figures of our own metrics where less is better; a harness task says it of its own."""


class Precision(StrEnum):
    """Which base weights take part."""

    AS_TRAINED = "AsTrained"
    """Quantized as the adapter was trained."""
    AS_SERVED = "AsServed"
    """Not quantized, in the compute type, as serving engines hold it."""


class EvaluationEngine(StrEnum):
    """What writes the answers of tasks that are answered in text; likelihoods are always the trainer's own."""

    TRANSFORMERS = "Transformers"
    """The trainer's own loop over the model."""
    VLLM = "Vllm"
    """A vLLM that the evaluate pod starts: adapters and base model as they are served."""


class PredictBy(StrEnum):
    """How a class is chosen."""

    LIKELIHOOD = "Likelihood"
    GENERATION = "Generation"


class BleuTokenizer(StrEnum):
    """How BLEU cuts texts into words, by sacrebleu's names."""

    MTEVAL_13A = "13a"
    """mteval-v13a's, for languages with blanks between words and Latin punctuation."""
    INTERNATIONAL = "Intl"
    """mteval-v14's: punctuation and symbols of all of Unicode."""
    CHARACTERS = "Char"
    """Each character is a word: for languages without blanks between words."""
    CHINESE = "Zh"
    """Each Chinese character is a word, the rest as 13a."""


NO_BLEU = "bleuTokenizer needs the metric BLEU"


class Turns(StrEnum):
    """Which of a conversation's answers are asked for."""

    LAST = "Last"
    EACH = "Each"


class TaskDataset(Model):
    """Rows to evaluate on: those held out by the target's training, or rows of their own."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            ("has(self.split) != has(self.uri)", "exactly one of split and uri must be set"),
            ("!has(self.format) || has(self.uri)", "format is for uri; the format of the split is known"),
        )
    )

    split: Literal["Test"] | None = Field(
        default=None, description="split of the target's data: Test, the rows held out of its training."
    )
    uri: DATA_URI | None = Field(
        default=None,
        description="uri of a file, or of a prefix that ends with '/', in the layout of a FineTuneJob's training.uri, "
        "or hf://datasets/org/name@revision; of a harnessTask the folder of its YAML files and data.",
    )
    format: DatasetFormat | None = Field(default=None, description="format of the rows; absent: Auto.")
    ignore_keys: list[KEY] | None = Field(
        default=None,
        min_length=1,
        max_length=64,
        json_schema_extra={"x-kubernetes-list-type": "set"},
        description="ignoreKeys are keys of rows and of messages that are left out, though they mean something "
        "elsewhere.",
    )
    limit: int | None = Field(
        default=None, ge=1, le=1_000_000, description="limit of rows; which ones depends on their content alone."
    )

    final: Literal[True] | None = Field(
        default=None,
        description="final: true is for rows that one Evaluation sees, and no other before or after it with final.",
    )

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.split is None) == (self.uri is None):
            raise ValueError("exactly one of split and uri must be set")
        if self.format is not None and self.uri is None:
            raise ValueError("format is for uri; the format of the split is known")
        if len(set(self.ignore_keys or ())) != len(self.ignore_keys or ()):
            raise ValueError("ignoreKeys must not repeat a value")
        return self


PAIRS_OF_PREFERENCE = "a Preference task takes rows of the format Preference, and no other task does"
NO_HARNESS_ON_A_HUB = (
    "the YAML files of a harnessTask are not read from a hub (hf://): of a repository rows alone are mirrored; name a "
    "builtin task for that"
)
ONE_HARNESS_TASK = "a Harness task needs either harnessTask or builtin"
ONE_PLACE = "dataset.uri of all tasks is on a hub (hf://) or of none: their keys are one Secret"
MAXIMUM_ON_A_HUB = 3
"""Sources of rows; beside the base model that is as many as are mirrored."""
NO_KEYS_OF_HARNESS = "a Harness task reads the columns that its YAML file names; remove ignoreKeys"


REFUSALS_OF_SPLIT = "a Refusal task needs dataset.uri: held-out rows do not say which of them are to be refused"
SCHEMA_OF_SPLIT = "a JsonSchema task of the split Test needs jsonSchema: held-out rows have no schema of their own"
NO_PROBABILITIES = "BrierScore and CalibrationError need predictBy: Likelihood: a generated label has no probability"


GENERATING = ("Generation", "Regression", "Classification", "ToolCalls", "JsonSchema", "Regex", "Refusal", "Judge")
OF_PAIRED_ROWS = ("Generation", "Classification", "MultipleChoice", "Regression", "Refusal")
"""Types whose answer to a row can be held against that to another row."""
CHANGED_ALONE = "pairs and the metric ChangedRatio need each other"
WHOLE_PAIRS = (
    "pairs needs dataset.uri, all of its rows and one greedy answer to each; remove split, limit, temperature and turns"
)
OF_TURNS = ("Generation", "ToolCalls", "JsonSchema", "Regex")
NO_SCORES_OF_PAIRS = "JudgeScore is of the mode Rubric, WinRate and InconsistentRatio are of the mode Pairwise"


def _only(field: str, *types: str) -> tuple[str, str]:
    allowed = " || ".join(f"self.type == '{each}'" for each in types)
    return f"!has(self.{field}) || {allowed}", f"{field} is for the type {' or '.join(types)}"


class EvaluationTask(Model):
    """One question that is asked of the target, and of the baseline where there is one, on the same rows."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            ("self.type != 'Classification' || has(self.labels)", "a Classification task needs labels"),
            ("self.type != 'Harness' || has(self.harnessTask) != has(self.builtin)", ONE_HARNESS_TASK),
            ("self.type != 'Harness' || has(self.dataset.uri)", "a Harness task needs dataset.uri"),
            (
                "!has(self.harnessTask) || !has(self.dataset.uri) || !self.dataset.uri.startsWith('hf://')",
                NO_HARNESS_ON_A_HUB,
            ),
            _only("labels", "Classification"),
            _only("predictBy", "Classification"),
            _only("maxNewTokens", *GENERATING),
            _only("stop", *GENERATING),
            _only("temperature", "Generation"),
            _only("topP", "Generation"),
            _only("bleuTokenizer", "Generation"),
            ("!has(self.bleuTokenizer) || !has(self.metrics) || self.metrics.exists(m, m == 'BLEU')", NO_BLEU),
            _only("turns", *OF_TURNS),
            _only("pairs", *OF_PAIRED_ROWS),
            (
                "!has(self.metrics) || has(self.pairs) == self.metrics.exists(m, m == 'ChangedRatio')",
                CHANGED_ALONE,
            ),
            (
                "!has(self.pairs) || (has(self.dataset.uri) && !has(self.dataset.limit) && !has(self.turns) && "
                "!(has(self.temperature) && self.temperature > 0.0))",
                WHOLE_PAIRS,
            ),
            _only("jsonSchema", "JsonSchema"),
            _only("pattern", "Regex", "Refusal"),
            ("self.type != 'Refusal' || has(self.dataset.uri)", REFUSALS_OF_SPLIT),
            ("self.type != 'Regex' || has(self.pattern)", "a Regex task needs pattern"),
            _only("judging", "Judge"),
            ("self.type != 'Judge' || has(self.judging)", "a Judge task needs judging"),
            (
                "!has(self.metrics) || !has(self.judging) || !self.metrics.exists(m, has(self.judging.mode) && "
                "self.judging.mode == 'Rubric' ? m == 'WinRate' || m == 'InconsistentRatio' : m == 'JudgeScore')",
                NO_SCORES_OF_PAIRS,
            ),
            (
                "self.type != 'JsonSchema' || has(self.jsonSchema) || has(self.dataset.uri)",
                SCHEMA_OF_SPLIT,
            ),
            # these are refused by prepare as well, where there is no API server: by reasons of their own
            (
                "self.type != 'MultipleChoice' || has(self.dataset.uri)",
                "a MultipleChoice task needs dataset.uri: rows that training held out have no choices",
            ),
            (
                "!has(self.groupBy) || has(self.dataset.uri) || self.groupBy == 'group'",
                "groupBy of the split Test can only be group, the column that training keeps; use dataset.uri",
            ),
            (
                "self.type != 'Classification' || (has(self.predictBy) && self.predictBy == 'Generation') || "
                "(!has(self.maxNewTokens) && !has(self.stop))",
                "maxNewTokens and stop of a Classification task need predictBy: Generation",
            ),
            (
                "!has(self.topP) || (has(self.temperature) && self.temperature > 0.0)",
                "topP needs a temperature above 0: without one nothing is sampled",
            ),
            (
                "!has(self.metrics) || !has(self.predictBy) || self.predictBy == 'Likelihood' || "
                "!self.metrics.exists(m, m == 'BrierScore' || m == 'CalibrationError')",
                NO_PROBABILITIES,
            ),
            _only("harnessTask", "Harness"),
            _only("builtin", "Harness"),
            _only("fewShot", "Harness"),
            ("self.type != 'Harness' || !has(self.dataset.ignoreKeys)", NO_KEYS_OF_HARNESS),
            (
                "!has(self.dataset.format) || self.dataset.format == 'Auto' || (self.type == 'Preference' ? "
                "self.dataset.format == 'Preference' : !(self.dataset.format in ['Preference', 'UnpairedPreference']))",
                PAIRS_OF_PREFERENCE,
            ),
            (
                "!has(self.metrics) || self.metrics.all(m, self.metrics.exists_one(n, n == m))",
                "metrics must not repeat a value",
            ),
            (
                "!has(self.metrics) || self.type != 'Harness'",
                "metrics of a Harness task are those of its YAML file; remove metrics",
            ),
            *(
                (
                    f"!has(self.metrics) || self.type != '{kind.value}' || self.metrics.all(m, m in "
                    f"[{', '.join(repr(metric.value) for metric in metrics)}])",
                    f"metrics of a {kind.value} task are {', '.join(metric.value for metric in metrics)}",
                )
                for kind, metrics in METRICS_OF.items()
                if metrics
            ),
        )
    )

    name: TASK_NAME = Field(description="name of the task, the first part of its metrics' names.")
    type: TaskType = Field(description="type of the task.")
    dataset: TaskDataset = Field(description="dataset to evaluate on.")
    metrics: list[Metric] | None = Field(
        default=None,
        min_length=1,
        max_length=max(map(len, METRICS_OF.values())),
        json_schema_extra={"x-kubernetes-list-type": "atomic"},  # in order: sets are compared without
        description="metrics to compute; absent: all that apply to the type but SecondsPerAnswer. The first is the "
        "headline.",
    )
    group_by: str | None = Field(
        default=None,
        min_length=1,
        max_length=64,
        description="groupBy is the column by whose value every metric is computed as well; of a Harness task a column "
        "of its data files.",
    )
    pairs: str | None = Field(
        default=None,
        min_length=1,
        max_length=64,
        description="pairs is the column whose value rows share that differ in a group's word alone (he, she): "
        "changedRatio is the share of these pairs whose answers differ.",
    )
    labels: list[LABEL] | None = Field(
        default=None,
        min_length=2,
        max_length=MAXIMUM_LABELS,
        json_schema_extra={"x-kubernetes-list-type": "set"},
        description="labels to choose from; each row's answer is one of them.",
    )
    predict_by: PredictBy | None = Field(
        default=None,
        description="predictBy the likelihood of each label (the default), or the label that the generated text is.",
    )
    max_new_tokens: int | None = Field(
        default=None,
        ge=1,
        le=32_768,
        description=f"maxNewTokens of a generated answer; {DEFAULT_NEW_TOKENS} if absent.",
    )
    stop: list[Annotated[str, Field(min_length=1, max_length=64)]] | None = Field(
        default=None,
        min_length=1,
        max_length=8,
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
        description="stop strings that end an answer and are no part of it, beside the model's own end of turn.",
    )
    temperature: float | None = Field(
        default=None, ge=0, le=10, description="temperature of sampling; 0 or absent: greedy."
    )
    top_p: float | None = Field(default=None, gt=0, le=1, description="topP of sampling: the nucleus' mass.")
    bleu_tokenizer: BleuTokenizer | None = Field(
        default=None,
        description="bleuTokenizer that cuts texts into words for BLEU, as sacrebleu names them: 13a (the default), "
        "Intl, Char for languages without blanks between words, or Zh.",
    )
    turns: Turns | None = Field(
        default=None,
        description="turns of a conversation that are asked for: its Last answer (the default), or Each of them, with "
        "what stands before it in the row.",
    )
    json_schema: str | None = Field(
        default=None,
        min_length=2,
        max_length=MAXIMUM_SCHEMA,
        description="jsonSchema that answers are to satisfy, as JSON text; absent: each row's own, in its column "
        "schema.",
    )
    pattern: str | None = Field(
        default=None,
        min_length=1,
        max_length=MAXIMUM_PATTERN,
        description="pattern that is to be found in an answer, in RE2's syntax; ^ and $ are its ends. Of a Refusal "
        "task that of refusals; absent: the usual English ones.",
    )
    judging: Judging | None = Field(default=None, description="judging: what spec.judge is asked of the answers.")
    harness_task: str | None = Field(
        default=None,
        min_length=1,
        max_length=128,
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$",
        description="harnessTask is the task of an lm-evaluation-harness YAML file in the folder dataset.uri.",
    )
    builtin: str | None = Field(
        default=None,
        min_length=1,
        max_length=128,
        pattern=r"^[A-Za-z0-9_][A-Za-z0-9_.-]*$",
        description="builtin is the name of a task that lm-evaluation-harness brings, such as gsm8k; dataset.uri then "
        "is the repository of its data (hf://datasets/openai/gsm8k@main), or a folder with a copy of it.",
    )
    few_shot: int | None = Field(default=None, ge=0, le=64, description="fewShot examples of a Harness task's prompt.")

    @property
    def chosen_metrics(self) -> tuple[Metric, ...]:
        """Return the metrics to compute, the headline first."""
        if self.metrics is not None:
            return tuple(self.metrics)
        paired = frozenset({Metric.CHANGED_RATIO} if self.pairs is None else ())
        left_out = BY_NAME_ALONE | paired | (OF_PROBABILITIES if self.generates else frozenset()) | self._of_other_modes
        return tuple(each for each in METRICS_OF[self.type] if each not in left_out)

    @property
    def _of_other_modes(self) -> frozenset[Metric]:
        """Metrics that a judge in this task's mode does not give."""
        if self.judging is None:
            return frozenset()
        return OF_PAIRS if self.judging.chosen_mode is JudgeMode.RUBRIC else OF_SCORES

    @property
    def harness_name(self) -> str:
        """Return what a Harness task is called in the YAML file that is run."""
        return self.harness_task or self.builtin or ""

    @property
    def timed(self) -> bool:
        """Tell whether it is measured how long answers take."""
        return Metric.SECONDS_PER_ANSWER in self.chosen_metrics

    @property
    def generates(self) -> bool:
        """Tell whether the task's predictions are generated text."""
        generated = self.type is TaskType.CLASSIFICATION and self.predict_by is PredictBy.GENERATION
        return generated or (self.type.value in GENERATING and self.type is not TaskType.CLASSIFICATION)

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        kind = self.type
        if kind is TaskType.CLASSIFICATION and self.labels is None:
            raise ValueError("a Classification task needs labels")
        if kind is TaskType.HARNESS and (self.harness_task is None) == (self.builtin is None):
            raise ValueError(ONE_HARNESS_TASK)
        if kind is TaskType.HARNESS and self.dataset.uri is None:
            raise ValueError("a Harness task needs dataset.uri")
        if self.harness_task is not None and from_hub(self.dataset.uri):
            raise ValueError(NO_HARNESS_ON_A_HUB)
        if kind is TaskType.HARNESS and self.dataset.ignore_keys is not None:
            raise ValueError(NO_KEYS_OF_HARNESS)
        pairs = kind is TaskType.PREFERENCE
        if self.dataset.format not in (None, DatasetFormat.AUTO) and (
            self.dataset.format is not DatasetFormat.PREFERENCE
            if pairs
            else self.dataset.format in (DatasetFormat.PREFERENCE, DatasetFormat.UNPAIRED_PREFERENCE)
        ):
            raise ValueError(PAIRS_OF_PREFERENCE)
        if kind is TaskType.REGEX and self.pattern is None:
            raise ValueError("a Regex task needs pattern")
        if kind is TaskType.JSON_SCHEMA and self.json_schema is None and self.dataset.uri is None:
            raise ValueError(SCHEMA_OF_SPLIT)
        if kind is TaskType.REFUSAL and self.dataset.uri is None:
            raise ValueError(REFUSALS_OF_SPLIT)
        if kind is TaskType.JUDGE and self.judging is None:
            raise ValueError("a Judge task needs judging")
        if self._of_other_modes & set(self.metrics or ()):
            raise ValueError(NO_SCORES_OF_PAIRS)
        allowed: dict[str, tuple[str, ...]] = {
            "labels": (TaskType.CLASSIFICATION,),
            "predict_by": (TaskType.CLASSIFICATION,),
            "max_new_tokens": GENERATING,
            "stop": GENERATING,
            "temperature": (TaskType.GENERATION,),
            "top_p": (TaskType.GENERATION,),
            "bleu_tokenizer": (TaskType.GENERATION,),
            "turns": OF_TURNS,
            "json_schema": (TaskType.JSON_SCHEMA,),
            "pattern": (TaskType.REGEX, TaskType.REFUSAL),
            "judging": (TaskType.JUDGE,),
            "pairs": OF_PAIRED_ROWS,
            "harness_task": (TaskType.HARNESS,),
            "builtin": (TaskType.HARNESS,),
            "few_shot": (TaskType.HARNESS,),
        }
        for field, types in allowed.items():
            if getattr(self, field) is not None and kind not in types:
                raise ValueError(f"{field} is for the type {' or '.join(types)}")
        generation = self.max_new_tokens is not None or self.stop is not None
        if generation and kind is TaskType.CLASSIFICATION and self.predict_by is not PredictBy.GENERATION:
            raise ValueError("maxNewTokens and stop of a Classification task need predictBy: Generation")
        if self.metrics is not None and (self.pairs is not None) != (Metric.CHANGED_RATIO in self.metrics):
            raise ValueError(CHANGED_ALONE)
        if self.pairs is not None and (
            self.dataset.uri is None or self.dataset.limit is not None or self.turns is not None or self.temperature
        ):
            raise ValueError(WHOLE_PAIRS)
        if self.bleu_tokenizer is not None and Metric.BLEU not in self.chosen_metrics:
            raise ValueError(NO_BLEU)
        if self.top_p is not None and not self.temperature:
            raise ValueError("topP needs a temperature above 0: without one nothing is sampled")
        for name in ("labels", "metrics"):
            values = getattr(self, name)
            if values is not None and len(set(values)) != len(values):
                raise ValueError(f"{name} must not repeat a value")
        if self.generates and OF_PROBABILITIES & set(self.metrics or ()):
            raise ValueError(NO_PROBABILITIES)
        if self.metrics is not None and not set(self.metrics) <= set(METRICS_OF[kind]):
            raise ValueError(f"metrics of a {kind.value} task are {', '.join(METRICS_OF[kind]) or 'its own'}")
        return self


BOUNDS = (
    "minimum",
    "maximum",
    "maximumRegression",
    "maximumRelativeRegression",
    "maximumGroupGap",
    "maximumWorseRatio",
    "maximumGroupRegression",
)
BoundName = Literal[
    "minimum",
    "maximum",
    "maximumRegression",
    "maximumRelativeRegression",
    "maximumGroupGap",
    "maximumWorseRatio",
    "maximumGroupRegression",
]


OF_COMPARISON = frozenset(
    {"maximumRegression", "maximumRelativeRegression", "maximumWorseRatio", "maximumGroupRegression"}
)
"""Bounds that are held against another model."""


class Against(StrEnum):
    """The model that a bound is held against."""

    BASELINE = "Baseline"
    ANCHOR = "Anchor"


NO_COMPARISON = "against belongs to a bound that compares, or to a winRate"


class Threshold(Model):
    """What a metric must keep to, alone or against baseline and anchor."""

    model_config = ConfigDict(
        json_schema_extra=rules(
            (
                " || ".join(f"has(self.{bound})" for bound in BOUNDS),
                f"a threshold needs one of {', '.join(BOUNDS)}",
            ),
            (
                "!has(self.minimumGroupRows) || has(self.maximumGroupGap) || has(self.maximumGroupRegression)",
                "minimumGroupRows belongs to maximumGroupGap and maximumGroupRegression",
            ),
            (
                "!has(self.worseBy) || has(self.maximumWorseRatio)",
                "worseBy belongs to maximumWorseRatio",
            ),
            (
                "!has(self.minimum) || !has(self.maximum) || self.minimum <= self.maximum",
                "minimum must not be above maximum",
            ),
            (
                "!has(self.against) || has(self.maximumRegression) || has(self.maximumRelativeRegression) || "
                "has(self.maximumWorseRatio) || has(self.maximumGroupRegression) || self.metric.endsWith('/winRate')",
                NO_COMPARISON,
            ),
        )
    )

    metric: METRIC_PATH = Field(description="metric as <task>/<result>, such as heldout/perplexity.")
    minimum: float | None = Field(default=None, ge=-1e12, le=1e12, description="minimum value.")
    maximum: float | None = Field(default=None, ge=-1e12, le=1e12, description="maximum value.")
    maximum_regression: float | None = Field(
        default=None,
        ge=0,
        le=1e12,
        description="maximumRegression against the baseline, absolute, in the direction that is worse.",
    )
    maximum_relative_regression: float | None = Field(
        default=None,
        ge=0,
        le=100,
        description="maximumRelativeRegression: the same as a share of the baseline's value, 0.05 is 5 %.",
    )
    maximum_group_gap: float | None = Field(
        default=None,
        ge=0,
        le=1e12,
        description="maximumGroupGap between the best and the worst group, beyond sampling noise. Needs groupBy.",
    )
    maximum_worse_ratio: float | None = Field(
        default=None,
        ge=0,
        lt=1,
        description="maximumWorseRatio of the rows that are worse than under the baseline by more than worseBy, tested "
        "exactly: however bad a few rows are, what it promises holds.",
    )
    worse_by: float | None = Field(
        default=None,
        ge=0,
        le=1e12,
        description="worseBy is how much worse a row may be before it counts in maximumWorseRatio, in the unit of a "
        "row's figure (nats per token of a perplexity); 0 if absent.",
    )
    maximum_group_regression: float | None = Field(
        default=None,
        ge=0,
        le=1e12,
        description="maximumGroupRegression of the worst group against the baseline in the same group, absolute. Needs "
        "groupBy.",
    )
    minimum_group_rows: int | None = Field(
        default=None,
        ge=2,
        le=1_000_000,
        description=f"minimumGroupRows; smaller groups are pooled as '{OTHER_GROUPS}'. {DEFAULT_GROUP_ROWS} if absent.",
    )
    confidence: float | None = Field(
        default=None,
        gt=0.5,
        lt=1,
        description="confidence makes of the bounds tests: passed only if worse values are excluded at this "
        "confidence. Absent: the estimates alone are compared.",
    )
    against: Against | None = Field(
        default=None,
        description="against Baseline or Anchor: which of the two the bounds of regressions and a winRate are held "
        "against; absent: each that the Evaluation has.",
    )

    @property
    def task(self) -> str:
        return self.metric.partition("/")[0]

    @property
    def result(self) -> str:
        return self.metric.partition("/")[2]

    @property
    def against_baseline(self) -> bool:
        bounds = self.maximum_regression, self.maximum_relative_regression
        return any(each is not None for each in (*bounds, self.maximum_worse_ratio, self.maximum_group_regression))

    def sides(self, bound: str, *, anchored: bool) -> tuple[Against, ...]:
        """Return what a bound is held against, one test each; `Baseline` alone of one that compares nothing.

        A `winRate` is a comparison by itself: a judge has seen both answers.
        """
        if bound not in OF_COMPARISON and self.result != "winRate":
            return (Against.BASELINE,)
        if self.against is not None:
            return (self.against,)
        return (Against.BASELINE, Against.ANCHOR) if anchored else (Against.BASELINE,)

    @property
    def by_group(self) -> bool:
        return self.maximum_group_gap is not None or self.maximum_group_regression is not None

    @property
    def limits(self) -> dict[str, float]:
        """Return the limits that are set, by the name of the bound, in the order of BOUNDS."""
        limits = {
            "minimum": self.minimum,
            "maximum": self.maximum,
            "maximumRegression": self.maximum_regression,
            "maximumRelativeRegression": self.maximum_relative_regression,
            "maximumGroupGap": self.maximum_group_gap,
            "maximumWorseRatio": self.maximum_worse_ratio,
            "maximumGroupRegression": self.maximum_group_regression,
        }
        return {name: limit for name in BOUNDS if (limit := limits[name]) is not None}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if not self.limits:
            raise ValueError(f"a threshold needs one of {', '.join(BOUNDS)}")
        if self.minimum_group_rows is not None and not self.by_group:
            raise ValueError("minimumGroupRows belongs to maximumGroupGap and maximumGroupRegression")
        if self.worse_by is not None and self.maximum_worse_ratio is None:
            raise ValueError("worseBy belongs to maximumWorseRatio")
        if self.minimum is not None and self.maximum is not None and self.minimum > self.maximum:
            raise ValueError("minimum must not be above maximum")
        if self.against is not None and not self.against_baseline and self.result != "winRate":
            raise ValueError(NO_COMPARISON)
        return self


class StoredArtifact(Model):
    """An adapter in object storage, pinned by its digest."""

    uri: OBJECT_URI
    digest: DIGEST | None = Field(default=None, description="digest it must have; recorded if absent")
    credentials: Credentials | None = None


class StoredBaseline(Model):
    """What the target is compared with: an adapter, or the base model alone if there is none."""

    artifact: StoredArtifact | None = None


class EvaluationConfig(Model):
    """One evaluation: `trimtab-trainer prepare --config evaluation.yaml`, then `evaluate`.

    `target` absent means the base model alone; `baseline` absent means that there is no comparison. `anchor` is a
    second baseline, which stays where it is while what is served moves on.
    """

    version: str
    run: RunIdentity = RunIdentity()
    base_model: StoredBaseModel
    target: StoredArtifact | None = None
    baseline: StoredBaseline | None = None
    anchor: StoredBaseline | None = Field(default=None, exclude_if=lambda value: value is None)
    tasks: list[EvaluationTask] = Field(min_length=1, max_length=MAXIMUM_TASKS)
    thresholds: list[Threshold] = Field(default=[], max_length=MAXIMUM_THRESHOLDS)
    judge: StoredJudge | None = None
    output: StoredOutput
    dataset_credentials: Credentials | None = None
    precision: Precision = Precision.AS_TRAINED
    engine: EvaluationEngine = EvaluationEngine.TRANSFORMERS
    quantization: QuantizationSettings | None = Field(
        default=None, description="of the base model where precision is AsTrained and there is no adapter to tell it"
    )
    maximum_trained_on_ratio: float = Field(
        default=0.05, ge=0, le=1, description="share of a task's rows that the target may have been trained on"
    )
    resamples: int = Field(default=10_000, ge=100, le=100_000, description="bootstrap resamples")
    seed: int = Field(default=17, ge=0, le=2_147_483_647, description="of resampling and of sampled answers")
    batch_size: int | None = Field(default=None, ge=1, le=4096, description="sequences of a forward pass; derived")

    @field_validator("version")
    @classmethod
    def _of_this_contract(cls, version: str) -> str:
        if not speaks(version, EVALUATION_VERSION):
            raise ValueError(f"this trainer reads {EVALUATION_VERSION}")
        return version

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        check_tasks_and_thresholds(
            self.tasks, self.thresholds, has_baseline=self.baseline is not None, has_anchor=self.anchor is not None
        )
        if self.anchor is not None and self.baseline is None:
            raise ValueError(ANCHOR_ALONE)
        check_judge(self.tasks, has_judge=self.judge is not None, has_baseline=self.baseline is not None)
        check_resamples(self.resamples, self.thresholds)
        check_engine(self.engine, self.precision)
        return self


ANCHOR_ALONE = "anchor is compared with beside baseline; set baseline too, or give the anchor as the baseline"
NO_ANCHOR = "against is for an Evaluation with anchor"
UNQUANTIZED_ENGINE = "engine: Vllm needs precision: AsServed: it holds the base model as it is served, not quantized"


def check_engine(engine: EvaluationEngine, precision: Precision) -> None:
    """Refuse an engine for weights that it does not hold.

    Raises:
        ValueError: with the next step.
    """
    if engine is EvaluationEngine.VLLM and precision is not Precision.AS_SERVED:
        raise ValueError(UNQUANTIZED_ENGINE)


NO_JUDGE = "a Judge task needs spec.judge"
NO_PAIR = "a Judge task of the mode Pairwise needs spec.baseline, whose answers the target's are held against"


def check_judge(tasks: list[EvaluationTask], *, has_judge: bool, has_baseline: bool) -> None:
    """Refuse tasks that nobody can judge.

    Raises:
        ValueError: with the next step.
    """
    for task in tasks:
        if task.judging is None:
            continue
        if not has_judge:
            raise ValueError(NO_JUDGE)
        if task.judging.chosen_mode is JudgeMode.PAIRWISE and not has_baseline:
            raise ValueError(NO_PAIR)


RESAMPLES_OF_A_TEST = 1_000
"""A p-value of 0.06 has a standard deviation of 0.024 over seeds of 100 resamples, and of 0.0075 of 1,000."""
FEW_RESAMPLES = f"a threshold with confidence needs at least {RESAMPLES_OF_A_TEST} resamples: of fewer the seed decides"


def check_resamples(resamples: int, thresholds: list[Threshold]) -> None:
    """Refuse tests of so few resamples that their seed decides.

    Raises:
        ValueError: with the next step.
    """
    if resamples < RESAMPLES_OF_A_TEST and any(each.confidence is not None for each in thresholds):
        raise ValueError(FEW_RESAMPLES)


def check_tasks_and_thresholds(
    tasks: list[EvaluationTask], thresholds: list[Threshold], *, has_baseline: bool, has_anchor: bool = False
) -> None:
    """Refuse thresholds that no task can answer.

    Raises:
        ValueError: with the field and the next step.
    """
    named = {task.name: task for task in tasks}
    if len(named) != len(tasks):
        raise ValueError("every task needs a name of its own")
    uris = [task.dataset.uri for task in tasks if task.dataset.uri is not None]
    on_a_hub = {uri for uri in uris if from_hub(uri)}
    if on_a_hub and not all(map(from_hub, uris)):
        raise ValueError(ONE_PLACE)
    if len(on_a_hub) > MAXIMUM_ON_A_HUB:
        raise ValueError(f"tasks have {len(on_a_hub)} sources on a hub (hf://), and at most {MAXIMUM_ON_A_HUB} may be")
    for threshold in thresholds:
        task = named.get(threshold.task)
        if task is None:
            raise ValueError(f"threshold {threshold.metric}: there is no task {threshold.task!r}")
        results = [name for metric in task.chosen_metrics for name in RESULTS[metric]]
        if task.type is not TaskType.HARNESS and threshold.result not in results:
            raise ValueError(f"threshold {threshold.metric}: task {task.name} gives {', '.join(results)}")
        if threshold.result == "changedRatio" and threshold.by_group:
            raise ValueError(f"threshold {threshold.metric}: a pair is of several groups; bound the figure itself")
        if threshold.against_baseline and not has_baseline:
            raise ValueError(f"threshold {threshold.metric}: a regression needs spec.baseline")
        if threshold.against is not None and not has_anchor:
            raise ValueError(f"threshold {threshold.metric}: {NO_ANCHOR}")
        for bound in ("maximumGroupGap", "maximumGroupRegression"):
            if bound in threshold.limits and task.group_by is None:
                raise ValueError(f"threshold {threshold.metric}: {bound} needs groupBy in task {task.name}")


class PreparedEvaluation(Received):
    """What preparing an evaluation found out: content addresses and sizes."""

    evaluation_digest: DIGEST = Field(description="evaluationDigest addresses <output>/evaluations/<digest>")
    data_digest: DIGEST = Field(description="dataDigest addresses <output>/evaluations/data/<digest>")
    base_model_digest: DIGEST
    target_digest: DIGEST | None = Field(default=None, description="targetDigest of the adapter; absent: base alone")
    baseline_digest: DIGEST | None = Field(default=None, description="baselineDigest of the adapter, if it is one")
    anchor_digest: DIGEST | None = Field(default=None, description="anchorDigest of the adapter, if it is one")
    tasks: int = Field(ge=1)
    rows: WHOLE = Field(description="rows of all tasks")


class Result(Received):
    """One figure of one task: an estimate with a 95 % interval, and its change against the baseline."""

    task: str
    metric: str
    value: float | None = None
    low: float | None = None
    high: float | None = None
    count: WHOLE = Field(default=0, description="rows")
    baseline: float | None = None
    change: float | None = Field(default=None, description="value - baseline")
    change_low: float | None = None
    change_high: float | None = None
    lower_is_better: bool = False
    anchor: float | None = Field(default=None, exclude_if=lambda value: value is None)
    anchor_change: float | None = Field(
        default=None, exclude_if=lambda value: value is None, description="value - anchor"
    )
    anchor_change_low: float | None = Field(default=None, exclude_if=lambda value: value is None)
    anchor_change_high: float | None = Field(default=None, exclude_if=lambda value: value is None)


class Check(Received):
    """What is known about one bound of one threshold: facts for the verdict, which the operator gives.

    Attributes:
        threshold: its index in the configuration.
        bound: which of the threshold's bounds.
        estimate: value, regression (positive is worse), relative regression, group gap, or share of worse rows.
        p_pass: probability under resampling of data at least this good if the truth were just beyond the bound: a
            small one excludes it. Only with `confidence`.
        p_fail: the same for the truth just within the bound: a small one excludes that all is well.
        low: of a group gap, its lower simultaneous confidence bound: what sampling noise does not explain.
        rows_needed: rows for a decision at 80 % power, if these did not suffice.
        worst, best: the groups of the gap; of a group regression the worst.
        against: what it is held against, where the bound compares.
    """

    threshold: int = Field(ge=0)
    bound: BoundName
    estimate: float | None = None
    p_pass: float | None = None
    p_fail: float | None = None
    low: float | None = None
    rows_needed: int | None = None
    worst: str | None = None
    best: str | None = None
    against: Against = Field(default=Against.BASELINE, exclude_if=lambda value: value is Against.BASELINE)


_RESULT_COLUMNS = (
    "task",
    "metric",
    "value",
    "low",
    "high",
    "count",
    "baseline",
    "change",
    "change_low",
    "change_high",
    "lower_is_better",
    "anchor",
    "anchor_change",
    "anchor_change_low",
    "anchor_change_high",
)
_CHECK_COLUMNS = (
    "threshold",
    "bound",
    "estimate",
    "p_pass",
    "p_fail",
    "low",
    "rows_needed",
    "worst",
    "best",
    "against",
)


PACKED_DIGITS = 6
"""Significant digits of packed figures; `results.json` has all of them."""
_DIGITS_OF_CHECKS = {"estimate": 5, "p_pass": 4, "p_fail": 4, "low": 4, "rows_needed": 2}
"""A share of 10,000 resamples has no more than four digits, and a forecast of rows is good for two."""
_FEWEST_DIGITS_OF_CHECKS = {"estimate": 4, "p_pass": 2, "p_fail": 2, "low": 3, "rows_needed": 1}
"""Where all bounds of all thresholds are set, which nobody needs: rounded in the direction that refuses, they fit."""
PACKED_NAME_LENGTH = 64
"""Names of groups are any text of the data."""


def _worse(check: Check, name: str) -> str | None:
    """Return the direction in which a figure of a check is rounded: a value beyond its limit must not come onto it."""
    if name == "estimate":
        return decimal.ROUND_FLOOR if check.bound == "minimum" else decimal.ROUND_CEILING
    return decimal.ROUND_CEILING if name in ("p_pass", "p_fail", "low") else None


def _packed(value: Any, digits: int = PACKED_DIGITS, rounding: str | None = None) -> Any:
    if isinstance(value, float) and rounding is not None:
        return float(decimal.Context(prec=digits, rounding=rounding).create_decimal(repr(value)))
    if isinstance(value, float) or (isinstance(value, int) and digits < PACKED_DIGITS):
        return type(value)(float(f"{value:.{digits}g}"))
    return value[:PACKED_NAME_LENGTH] if isinstance(value, str) else value


def as_told(checks: list[Check]) -> list[Check]:
    """Return checks as a termination message carries them: a verdict on these is the operator's."""
    return [
        each.model_copy(
            update={
                name: _packed(getattr(each, name), digits, _worse(each, name))
                for name, digits in _DIGITS_OF_CHECKS.items()
            }
        )
        for each in checks
    ]


def _inflated(data: bytes) -> bytes:
    inflating = zlib.decompressobj()
    inflated = inflating.decompress(data, OUTCOME_BYTES)
    if inflating.unconsumed_tail or not inflating.eof:
        raise ValueError(f"it is cut off, or longer than {OUTCOME_BYTES} bytes")
    return inflated


class EvaluationOutcome(Received):
    """What an evaluation found: facts for the verdict, and where the rest of it lies."""

    report_uri: str = Field(max_length=1200, description="reportURI of report.html")
    results_digest: DIGEST = Field(description="resultsDigest of results.json")
    rows: WHOLE = 0
    looks: WHOLE = Field(default=0, description="evaluations that saw the most used of these rows, this one included")
    results: list[Result] = Field(default=[])
    omitted: WHOLE = Field(default=0, description="results that are in the report only")
    unreliable: str | None = Field(
        default=None, max_length=UNRELIABLE_LENGTH, description="why a judge's words decide nothing, in a sentence"
    )
    checks: list[Check] = Field(default=[])

    def pack(self, limit: int) -> str:
        """Return the outcome as text of at most `limit` characters: columns of JSON, deflated, in base64.

        A termination message holds 4 kB, and fifty tasks with their intervals are more than that as plain JSON.
        Results are left out from the end until it fits, those that a check is about stand first; then the names of
        groups, then digits of the checks, and then the rows that are needed. Figures are rounded to `PACKED_DIGITS` or
        fewer, those of checks in the direction that refuses.
        """
        results, checks, digits = list(self.results), self.checks, _DIGITS_OF_CHECKS
        while True:
            document = {
                "reportUri": self.report_uri,
                "resultsDigest": self.results_digest,
                "rows": self.rows,
                "looks": self.looks,
                **({"unreliable": self.unreliable} if self.unreliable is not None else {}),
                "omitted": self.omitted + len(self.results) - len(results),
                "results": [[_packed(getattr(each, name)) for each in results] for name in _RESULT_COLUMNS],
                "checks": [
                    [
                        _packed(getattr(each, name), digits.get(name, PACKED_DIGITS), _worse(each, name))
                        for each in checks
                    ]
                    for name in _CHECK_COLUMNS
                ],
            }
            data = json.dumps(document, separators=(",", ":")).encode()
            text = base64.b85encode(zlib.compress(data, 9)).decode()
            if len(text) <= limit:
                return text
            if results:
                results.pop()
            elif any(each.worst or each.best for each in checks):
                checks = [each.model_copy(update={"worst": None, "best": None}) for each in checks]
            elif digits is _DIGITS_OF_CHECKS:
                digits = _FEWEST_DIGITS_OF_CHECKS
            elif any(each.rows_needed is not None for each in checks):
                checks = [each.model_copy(update={"rows_needed": None}) for each in checks]
                digits = {**digits, "estimate": 3, "p_fail": 1}
            else:
                return text

    @classmethod
    def unpack(cls, text: str) -> Self:
        """Return what `pack` was given, by this version or another: columns are only ever added, behind the others.

        Raises:
            ValueError: the text is something else.
        """
        try:
            document: dict[str, Any] = json.loads(_inflated(base64.b85decode(text)))
            results = [dict(zip(_RESULT_COLUMNS, row, strict=False)) for row in zip(*document["results"], strict=True)]
            checks = [dict(zip(_CHECK_COLUMNS, row, strict=False)) for row in zip(*document["checks"], strict=True)]
        except (zlib.error, ValueError, KeyError, TypeError, RecursionError) as error:
            raise ValueError(f"no outcome of an evaluation: {error}") from error
        checks = [check for check in checks if check.get("bound") in BOUNDS]  # others are of no threshold that we wrote
        return cls.model_validate({**document, "results": results, "checks": checks})
