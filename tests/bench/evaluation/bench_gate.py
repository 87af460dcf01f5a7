"""How often the gate errs, from stored per-row scores of two adapters that differ by their seeds: `make bench-gate`.

    PYTHONPATH=. python tests/bench/evaluation/bench_gate.py \\
        [--scores FILE] [--draws 5000] [--resamples 1000] [--tolerance 0.02] [--quick]
    PYTHONPATH=. python tests/bench/evaluation/bench_gate.py --situation Zipf [--rows 200] [--draws 10000] [--seed 11]

First the situations of gate_situations.py, two fifths of --draws each: how many pass with the truth at the limit, and
how many of benign ones pass beside how many would by the bootstrap alone. --quick draws a twentieth of all;
--situation draws those alone whose name has the word.

The paired differences of the stored rows are centred and shifted to a true loss of 0, 1 and 2 tolerances. From them
rows are drawn with replacement, 200 to 2,000 a time, and each draw is judged by the functions that evaluations use, at
confidence 0.95. Two figures are judged: the accuracy against `maximumRegression` and the perplexity against
`maximumRelativeRegression`. For the gap between groups, ten equal groups of 50 rows are drawn. --scores takes the file
that gate_scores.py makes, or two scores.jsonl of a Perplexity task with its rows.jsonl, as
`--scores ROWS TARGET BASELINE`. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from trimtab_trainer.evaluate.rows import EvaluationRow, RowScore, read_lines
from trimtab_trainer.evaluate.scoring.labels.label_metrics import label_figures, label_statistics, macro
from trimtab_trainer.evaluate.scoring.measure import ratio
from trimtab_trainer.evaluate.statistics import Array, Resampling, gap, p_at_least, p_at_most, partition
from trimtab_trainer.evaluate.statistics.bounds import MINIMUM_OF_A_KIND

from tests.bench.evaluation.gate_situations import AT_THE_LIMIT, BENIGN, Size, share_passed, worse_ratio

SITUATION_SIZES = (20, 50, 100, 200, 500, 2_000)
SCORES = Path(__file__).parent / "gate_scores.json"
SIZES = (200, 500, 1_000, 2_000)
CURVE = (200, 350, 500, 700, 1_000, 1_400, 2_000, 2_800, 3_200, 4_000)
LOSSES = (0, 1, 2)
ALPHA, ALLOWED = 0.05, 0.06
GROUPS, GROUP_ROWS, RIGHT = 10, 50, 0.80
LABEL_SHARES = (0.3, 0.25, 0.2, 0.1, 0.05, 0.04, 0.03, 0.015, 0.01, 0.005)
LABEL_RIGHT = (0.9, 0.9, 0.85, 0.85, 0.8, 0.8, 0.7, 0.7, 0.6, 0.5)
"""Of ten labels: how many rows have each, and how many of these are classified rightly."""
LABEL_SIZES = (50, 100, 200, 500, 1_000, 2_000)
WORSE_SHARE = 0.05
ENOUGH_ROWS = 500
"""From which on power on benign data is held against that of the bootstrap alone: of fewer and uneven rows a broken
share may not be seen."""
QUICK = 20
_COLUMNS = 500
"""Draws at once: they share the resamples' counts, which do not depend on the rows' values."""


@dataclass(frozen=True)
class Figure:
    """A figure whose loss is judged.

    Attributes:
        statistics: [rows, k] per stored row, centred: a true loss of 0.
        loss: from sums [..., 2 * draws], centred as the statistics are, to the estimated loss [..., draws].
        moved: from such a loss to that of the same rows at another true loss.
        edge, span: as `p_at_least` takes them.
        deviation: standard deviation of a row's share in the loss.
    """

    name: str
    statistics: Array
    loss: Callable[[Array], Array]
    moved: Callable[[Array, float], Array]
    edge: float | None
    span: float | None
    deviation: float


def accuracy(right: Array) -> Figure:
    """Return the loss of accuracy of the first side; right is [2, rows]."""
    lost = right[1] - right[0]
    statistics = np.stack([lost - lost.mean(), np.ones(len(lost))], axis=1)

    return Figure("accuracy", statistics, _of_pairs, np.add, 0.0, 1.0, float(lost.std()))


def perplexity(nats: Array, tokens: Array) -> Figure:
    """Return the relative loss of perplexity of the first side; nats is [2, rows]."""
    more = nats[0] - nats[1]
    centred = more - more.sum() / tokens.sum() * tokens
    statistics = np.stack([centred, tokens], axis=1)

    # Perplexities whose logarithms differ by d have the ratio exp(d); a true loss of s multiplies it by 1 + s.
    return Figure(
        "perplexity",
        statistics,
        lambda sums: np.expm1(_of_pairs(sums)),
        lambda loss, shift: (1 + shift) * (1 + loss) - 1,
        None,
        None,
        float(centred.std() / tokens.mean()),
    )


def _of_pairs(sums: Array) -> Array:
    """Return the ratio of every draw's two sums: [..., 2 * draws] to [..., draws]."""
    return ratio(sums.reshape(*sums.shape[:-1], 2, -1).swapaxes(-1, -2))[..., 0]


def passed(figure: Figure, rows: int, options: argparse.Namespace) -> dict[int, float]:
    """Return the share of draws that pass, by the true loss in tolerances."""
    random = np.random.default_rng([options.seed, rows])
    resampling = Resampling(range(rows), seed=options.seed, resamples=options.resamples)
    found = dict.fromkeys(LOSSES, 0)
    for start in range(0, options.draws, _COLUMNS):
        count = min(_COLUMNS, options.draws - start)
        drawn = figure.statistics[random.integers(0, len(figure.statistics), (rows, count))]
        part = resampling.part(drawn.swapaxes(1, 2).reshape(rows, -1), figure.loss)
        for each in resampling.distributions([part])[0]:
            for loss in LOSSES:
                shifted = each.map(partial(_moved, figure, loss * options.tolerance))
                p = p_at_least(
                    shifted, options.tolerance, edge=figure.edge, span=figure.span, rows_have_scale=figure.span is None
                )
                # As the gate has it: an estimate beyond the limit never passes.
                found[loss] += p <= ALPHA and shifted.estimate <= options.tolerance
    return {loss: count / options.draws for loss, count in found.items()}


def _moved(figure: Figure, shift: float, loss: Array) -> Array:
    return figure.moved(loss, shift)


def equal_groups(right: Array, options: argparse.Namespace) -> dict[str, float]:
    """Return how often ten equal groups show a gap, by groups of one accuracy, and by stored rows dealt at random."""
    random = np.random.default_rng(options.seed)
    draws, rows = options.draws, GROUPS * GROUP_ROWS
    resampling = Resampling(range(rows), seed=options.seed, resamples=options.resamples)
    names = [f"group {at // GROUP_ROWS}" for at in range(rows)]
    groups = partition(names, resampling, minimum_rows=GROUP_ROWS)
    found: dict[str, float] = {}
    for kind in ("accuracy 0.80", "stored rows"):
        raw = shown = beyond = 0
        for start in range(0, draws, _COLUMNS):
            size = (rows, min(_COLUMNS, draws - start))
            made = random.random(size) < RIGHT if kind == "accuracy 0.80" else random.choice(right[0], size)
            values = made.astype(np.float64)
            statistics = np.hstack([values, np.ones((rows, 1))])
            parts = [resampling.part(statistics, _means, each) for each in groups.rows]
            totals = np.stack([each.total for each in parts], axis=1)
            resampled = np.stack(resampling.figures(parts), axis=1)
            for at in range(size[1]):
                judged = gap(totals[at], resampled[:, :, at], groups, lower_is_better=False, confidence=1 - ALPHA)
                if judged is None:
                    raise ValueError("the groups of a draw cannot be judged")
                raw += judged.gap > 0.10
                shown += judged.low > 0
                beyond += judged.low > 0.10
        found |= {
            f"{kind}: raw gap above 0.10": raw / draws,
            f"{kind}: pass with tolerance 0.10": 1 - beyond / draws,
            f"{kind}: pass with tolerance 0": 1 - shown / draws,
        }
    return found


def _means(sums: Array) -> Array:
    with np.errstate(invalid="ignore"):
        return np.asarray(sums[..., :-1] / sums[..., -1:], np.float64)


def rare_labels(rows: int, draws: int, options: argparse.Namespace) -> tuple[float, float]:
    """Return how many draws of a classifier whose macro F1 is the minimum pass, all of them and as the gate has it.

    The gate tests no macro figure where a label has fewer than `MINIMUM_OF_A_KIND` rows.
    """
    shares = np.array(LABEL_SHARES)
    wrong = np.tile(shares, (len(shares), 1))
    np.fill_diagonal(wrong, 0)
    predicted = (1 - np.array(LABEL_RIGHT))[:, None] * wrong / wrong.sum(axis=1, keepdims=True)
    np.fill_diagonal(predicted, LABEL_RIGHT)
    together = shares[:, None] * predicted
    truth = float((2 * np.diag(together) / (together.sum(axis=0) + together.sum(axis=1))).mean())
    random = np.random.default_rng([options.seed, rows])
    resampling = Resampling(range(rows), seed=options.seed, resamples=options.resamples)
    passed_all = passed_gate = 0
    for _ in range(draws):
        answers = random.choice(len(shares), p=shares, size=rows)
        chosen = (random.random(rows)[:, None] > predicted.cumsum(axis=1)[answers]).sum(axis=1)
        chosen = chosen.clip(0, len(shares) - 1)
        statistics = label_statistics(answers.astype(np.float64), chosen.astype(np.float64), len(shares))
        ((found,),) = resampling.distributions([resampling.part(statistics.astype(np.float32), _macro_f1)])
        kept = p_at_most(found, truth, edge=1.0, span=1.0) <= ALPHA
        passed_all += kept
        passed_gate += kept and np.bincount(answers, minlength=len(shares)).min() >= MINIMUM_OF_A_KIND
    return passed_all / draws, passed_gate / draws


def _macro_f1(sums: Array) -> Array:
    return macro(label_figures(sums)[0][..., 2, :], sums)[..., None]


def situations(options: argparse.Namespace) -> dict[str, object]:
    """Print how many draws pass at the limit, and of benign ones; return it with the worst."""
    tables: dict[str, dict[str, dict[str, object]]] = {"atTheLimit": {}, "notPromised": {}, "benign": {}}
    worst, case, kept = 0.0, "", 1.0
    print(f"passed with the truth at the limit, confidence {1 - ALPHA:g}; in brackets by the bootstrap alone")
    sizes = options.rows or SITUATION_SIZES
    print(f"{'':74}" + "".join(f"{rows:>16,}" for rows in sizes))
    for situation in (*AT_THE_LIMIT, *BENIGN):
        if options.situation not in situation.name:
            continue
        benign = situation in BENIGN
        table = tables["benign" if benign else "atTheLimit" if situation.promised else "notPromised"]
        table[situation.name] = shares = {}
        shown = []
        for rows in sizes:
            size = Size(rows, max(options.draws * 2 // 5, 1), options.resamples)
            found, plain = share_passed(situation, size, options.seed)
            shares[str(rows)] = [round(found, 4), round(plain, 4)] if benign else round(found, 4)
            shown.append(f"{found:8.1%} ({plain:5.1%})")
            if not benign and situation.promised and found > worst:
                worst, case = found, f"{situation.name}, {rows} rows"
            if benign and rows >= ENOUGH_ROWS and plain > 0:
                kept = min(kept, found / plain)
        print(f"{situation.name:74}" + "".join(f"{each:>16}" for each in shown), flush=True)
    for name, clustered in () if options.situation else (("rows", False), ("clusters of 5", True)):
        shares = {}
        for rows in SITUATION_SIZES:
            size = Size(rows, max(options.draws // 10, 1), min(options.resamples, 400))
            shares[str(rows)] = found = worse_ratio(WORSE_SHARE, clustered, size, options.seed)
            if found > worst:
                worst, case = found, f"share of worse {name}, {rows} rows"
        title = f"maximumWorseRatio {WORSE_SHARE:g}, {name} worse beyond measure"
        tables["atTheLimit"][title] = dict(shares)
        print(f"{title:74}" + "".join(f"{each:>16.1%}" for each in shares.values()), flush=True)
    return {
        "worst_false_pass": round(worst, 4),
        "worst_false_pass_case": case,
        "power_unchanged": round(kept, 4),
        "situations": tables,
    }


def read(files: list[Path]) -> list[Figure]:
    """Return the figures that a scores file allows, or rows and scores of two evaluations do."""
    if len(files) == 1:
        stored = json.loads(files[0].read_text())
        print(stored["about"])
        tokens, nats = np.array(stored["tokens"], np.float64), np.array(stored["nats"])
        return [accuracy(np.array(stored["right"], np.float64)), perplexity(nats, tokens)]
    rows = read_lines(files[0], EvaluationRow)
    scores = [read_lines(each, RowScore) for each in files[1:]]
    if len(scores) != 2 or any([score.number for score in each] != [row.number for row in rows] for each in scores):
        raise SystemExit("--scores takes one file, or rows.jsonl and the scores.jsonl of two models on the same rows")
    nats = np.array([[-sum(score.log_likelihoods) for score in each] for each in scores])
    return [perplexity(nats, np.array([[sum(s.counted for s in row.sequences)] for row in rows], np.float64)[:, 0])]


def main() -> None:
    """Print tables of error rates."""
    parser = argparse.ArgumentParser(description="Error rates of the gate.")
    parser.add_argument("--scores", type=Path, nargs="+", default=[SCORES])
    parser.add_argument("--draws", type=int, default=5_000)
    parser.add_argument("--resamples", type=int, default=1_000)
    parser.add_argument("--tolerance", type=float, default=0.02)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--situation", default="", help="draw the situations alone whose name has this")
    parser.add_argument("--rows", type=int, nargs="+", help="of these; all sizes if absent")
    options = parser.parse_args()
    if options.quick:
        options.draws, options.resamples = options.draws // QUICK, options.resamples // 2
    if options.situation:
        print(json.dumps(situations(options)))
        return
    started = time.monotonic()
    figures = read(options.scores)
    answer: dict[str, object] = {"tolerance": options.tolerance, "draws": options.draws, **situations(options)}
    for figure in figures:
        print(f"\n{figure.name}: sd of a row's difference {figure.deviation:.3f}, tolerance {options.tolerance}")
        print("   rows  unchanged refused  passed at the tolerance  twice-worse passed")
        table: dict[int, dict[int, float]] = {}
        enough = None
        for rows in CURVE:
            if rows not in SIZES and enough is not None:
                continue
            table[rows] = passed(figure, rows, options)
            refused, at_tolerance, worse = 1 - table[rows][0], table[rows][1], table[rows][2]
            print(f"{rows:7,} {refused:18.2%} {at_tolerance:24.2%} {worse:19.2%}", flush=True)
            if enough is None and refused <= ALLOWED and worse <= ALLOWED:
                enough = rows
        planned = math.ceil(((1.645 + 1.555) * figure.deviation / options.tolerance) ** 2)
        print(f"both errors at most {ALLOWED:.0%} from {enough} rows; ((1.645 + 1.555) * sd / tolerance)^2 = {planned}")
        answer[figure.name] = {
            "deviation": round(figure.deviation, 4),
            "at_tolerance_passed": {str(rows): table[rows][1] for rows in SIZES},
            "unchanged_refused": {str(rows): round(1 - each[0], 4) for rows, each in table.items()},
            "twice_worse_passed": {str(rows): each[2] for rows, each in table.items()},
            "enough_rows": enough,
        }
    stored = json.loads(options.scores[0].read_text()) if len(options.scores) == 1 else None
    if stored is not None:
        groups = equal_groups(np.array(stored["right"], np.float64), options)
        print(f"\n{GROUPS} equal groups of {GROUP_ROWS} rows")
        for name, share in groups.items():
            print(f"{share:8.2%}  {name}")
        answer["groups"] = groups
    print(
        f"\nmacro F1 of {len(LABEL_SHARES)} labels, the rarest with {min(LABEL_SHARES):.1%} of the rows, at its minimum"
    )
    print("   rows  all tested  as the gate has it")
    answer["rareLabels"] = found = {}
    for rows in LABEL_SIZES:
        every, gate = rare_labels(rows, max(options.draws // 10, 1), options)
        print(f"{rows:7,} {every:11.1%} {gate:19.1%}", flush=True)
        found[str(rows)] = gate
        if gate > float(str(answer["worst_false_pass"])):
            answer |= {"worst_false_pass": gate, "worst_false_pass_case": f"macro F1 with rare labels, {rows} rows"}
    answer["seconds"] = round(time.monotonic() - started, 1)
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
