"""Faults of the gate: what was trained on is not recognised, and what is lost little by little is not seen."""

from __future__ import annotations

from tests.mutants.mutant import Mutant, Trap

GATE = (
    Mutant(
        "the anchor is not asked for",
        Trap.GATE,
        "ten releases lose a tenth, each of them little enough",
        "contract/evaluation.py",
        "        return (Against.BASELINE, Against.ANCHOR) if anchored else (Against.BASELINE,)",
        "        return (Against.BASELINE,)",
        "evaluate/test_comparison.py::test_ten_releases_that_each_lose_one_percent_are_seen_by_the_anchor_alone",
    ),
    Mutant(
        "what is known of the baseline is believed of the anchor",
        Trap.GATE,
        "the anchor is as good as what is served, whatever it is",
        "evaluate/comparison.py",
        "    measured = _Measured(task, rows, target, anchor, seed=seed, resamples=resamples, "
        "lower_is_better=lower_is_better)",
        "    measured = _Measured(task, rows, target, target, seed=seed, resamples=resamples, "
        "lower_is_better=lower_is_better)",
        "evaluate/test_comparison.py::test_ten_releases_that_each_lose_one_percent_are_seen_by_the_anchor_alone",
    ),
    Mutant(
        "questions that were trained on are not looked for",
        Trap.GATE,
        "the adapter has learned the test, with other answers",
        "evaluate/preparing/trained_rows.py",
        "        seen.update({key for key in map(_key, prompts_of(row)) if key in wanted})",
        "        seen.update(())",
        "evaluate/preparing/test_trained_rows.py::test_any_text_of_a_document_may_be_what_is_asked",
    ),
    Mutant(
        "texts that were trained on are not looked for",
        Trap.GATE,
        "a copied benchmark with other punctuation is no leak",
        "evaluate/preparing/trained_rows.py",
        "        found.update(index.held_by(said(row)))",
        "        found.update(())",
        "evaluate/preparing/test_trained_rows.py::test_a_text_with_other_punctuation_is_recognised",
    ),
)
