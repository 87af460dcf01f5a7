"""What models are asked: a task, its rows and how it is answered."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import ConfigDict, Field, model_validator

from ..judging import JudgeMode, Judging
from ..model import Model, rules
from ..settings import DATA_URI, KEY, DatasetFormat, from_hub
from .metrics import BY_NAME_ALONE, METRICS_OF, OF_PAIRS, OF_PROBABILITIES, OF_SCORES, Metric, TaskType

MAXIMUM_LABELS = 200
MAXIMUM_SCHEMA, MAXIMUM_PATTERN = 16_384, 1_024

DEFAULT_NEW_TOKENS = 128

TASK_NAME = Annotated[str, Field(min_length=1, max_length=40, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
LABEL = Annotated[str, Field(min_length=1, max_length=256)]


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
