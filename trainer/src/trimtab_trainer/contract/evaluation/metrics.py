"""What is measured: the types of tasks, the metrics of each, and the names of their figures."""

from __future__ import annotations

from enum import StrEnum


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
