"""The outcome of an evaluation as plain text, for people at a terminal. No torch."""

from __future__ import annotations

from collections.abc import Sequence

from ...contract import Check, EvaluationConfig, EvaluationOutcome
from ...contract.evaluation import Against
from ...contract.gate.verdict import judge

HEADS = ("metric", "value", "95 % interval", "rows", "baseline", "change")
ANCHOR_HEADS = ("anchor", "change")
CHECK_HEADS = ("threshold", "bound", "allowed", "found", "rows needed")


def table(config: EvaluationConfig, outcome: EvaluationOutcome) -> str:
    """Return the figures, what is known about the thresholds, the verdict, and where the report lies.

    Args:
        config: whose thresholds the checks count.
        outcome: what was found.
    """
    anchored = config.anchor is not None
    rows = [
        (
            f"{result.task}/{result.metric}",
            _number(result.value),
            f"{_number(result.low)} .. {_number(result.high)}" if result.low is not None else "-",
            str(result.count),
            _number(result.baseline),
            _number(result.change, sign=True),
            *((_number(result.anchor), _number(result.anchor_change, sign=True)) if anchored else ()),
        )
        for result in outcome.results
    ]
    parts = [_columns((*HEADS, *ANCHOR_HEADS) if anchored else HEADS, rows)]
    if outcome.omitted:
        parts.append(f"and {outcome.omitted} more in the report")
    if outcome.checks:
        parts += ["", _columns(CHECK_HEADS, [_check(config, check) for check in outcome.checks])]
    found = judge(config.thresholds, outcome, anchored=anchored)
    verdict = f"{'passed' if found.passed else 'not passed'} ({found.reason.value}): {found.message}"
    return "\n".join(["", *parts, "", verdict, f"report: {outcome.report_uri}"])


def _check(config: EvaluationConfig, check: Check) -> tuple[str, ...]:
    threshold = config.thresholds[check.threshold]
    allowed = threshold.to_json().get(check.bound)
    return (
        threshold.metric,
        check.bound if check.against is Against.BASELINE else f"{check.bound} (anchor)",
        _number(float(allowed)) if allowed is not None else "-",
        _number(check.estimate),
        str(check.rows_needed) if check.rows_needed is not None else "-",
    )


def _number(value: float | None, *, sign: bool = False) -> str:
    if value is None:
        return "-"
    return f"{value:+.4g}" if sign else f"{value:.4g}"


def _columns(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(line[at]) for line in (heads, *rows)) for at in range(len(heads))]
    lines = (heads, ["-" * width for width in widths], *rows)
    # Names to the left, numbers to the right.
    return "\n".join(
        "  ".join(
            cell.ljust(width) if at == 0 else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )
