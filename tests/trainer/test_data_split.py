"""Splits never leak and never depend on the order of rows; packing keeps rows apart and fills sequences well."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import chain
from random import Random

import numpy as np
import pytest
from hypothesis import event, given, settings
from hypothesis import strategies as st
from trimtab_trainer.contract import DatasetFormat, HeldOut, Reason, StoredDataset, TrainingData, Validation
from trimtab_trainer.data.choosing.split import TEST, TRAINING, VALIDATION, Sides, split
from trimtab_trainer.data.cleaning.clusters import (
    NO_KEY,
    Clusters,
    answer_key,
    answer_keys,
    connect,
    group_key,
    group_keys,
)
from trimtab_trainer.data.packing import pack
from trimtab_trainer.data.reading.formats import Row
from trimtab_trainer.data.rows import keys_of
from trimtab_trainer.errors import DataInvalid

URI = "file:///data/"
Pair = tuple[int, int | None]
"""A row by its answer and its group."""


def dataset(validation: Validation | None = None, test: HeldOut | None = None, seed: int = 17) -> StoredDataset:
    return StoredDataset(training=TrainingData(uri=URI), validation=validation, test=test, split_seed=seed)


def key(kind: str, value: int | None) -> bytes:
    return NO_KEY if value is None else hashlib.sha256(f"{kind}{value}".encode()).digest()


def clusters_of(rows: Sequence[Pair], near: Sequence[int] | None = None) -> Clusters:
    answers, groups = keys_of([key("answer", a) for a, _ in rows]), keys_of([key("group", g) for _, g in rows])
    return connect(answers, groups, None if near is None else np.array(near, np.int64))


def divide(
    rows: Sequence[Pair], how: StoredDataset, source: Sequence[int] | None = None, strata: Sequence[int] | None = None
) -> Sides:
    where = np.array(source if source is not None else [TRAINING] * len(rows), np.int8)
    return split(
        clusters_of(rows), where, how, strata=None if strata is None else np.array(strata, np.int64)
    )  # fmt: skip


def sides_of(sides: Sides) -> list[list[int]]:
    return [sides.training.tolist(), sides.validation.tolist(), sides.test.tolist()]


PAIRS = st.lists(
    st.tuples(st.integers(0, 60), st.one_of(st.none(), st.none(), st.integers(0, 40))), min_size=1, max_size=120
)
VALIDATIONS = st.one_of(
    st.none(),
    st.floats(0.01, 0.5).map(lambda f: Validation(fraction=f)),
    st.integers(2, 6).flatmap(lambda n: st.integers(0, n - 1).map(lambda k: Validation(folds=n, fold=k))),
    st.just(Validation(uri=URI)),
)
TESTS = st.one_of(st.none(), st.floats(0.01, 0.5).map(lambda f: HeldOut(fraction=f)), st.just(HeldOut(uri=URI)))


@st.composite
def cases(draw: st.DrawFn) -> tuple[list[Pair], list[int], StoredDataset]:
    """Return rows, the source of each, and how to split them."""
    how = dataset(draw(VALIDATIONS), draw(TESTS), draw(st.integers(0, 5)))
    rows = draw(PAIRS)
    source = [TRAINING] * len(rows)
    for side, held_out in ((VALIDATION, how.validation), (TEST, how.test)):
        if held_out is not None and held_out.uri is not None:
            rows += (more := draw(PAIRS.filter(lambda pairs: len(pairs) < 20)))
            source += [side] * len(more)
    return rows, source, how


@settings(max_examples=300, deadline=None)
@given(cases(), st.randoms(use_true_random=False))
def test_no_answer_and_no_group_is_on_two_sides_whatever_the_order(
    case: tuple[list[Pair], list[int], StoredDataset], shuffler: Random
) -> None:
    rows, source, how = case
    try:
        sides = divide(rows, how, source)
    except DataInvalid as error:
        event(error.reason.value)
        return
    event("split")
    numbers = sides_of(sides)
    assert sorted([*chain.from_iterable(numbers), *sides.leaked.tolist()]) == list(range(len(rows)))
    for which in (0, 1):
        seen = [{rows[number][which] for number in side} - {None} for side in numbers]
        assert not seen[0] & seen[1]
        assert not seen[0] & seen[2]
        assert not seen[1] & seen[2]
    if how.test is not None and how.test.uri:
        assert numbers[2] == [number for number, side in enumerate(source) if side == TEST], "held-out data stays whole"

    order = list(range(len(rows)))
    shuffler.shuffle(order)
    again = divide([rows[number] for number in order], how, [source[number] for number in order])
    assert [sorted(order[number] for number in side) for side in sides_of(again)] == numbers


def test_folds_cover_every_row_once_and_leave_the_test_alone() -> None:
    rows = [(number // 3, None) for number in range(3000)]
    folds = [divide(rows, dataset(Validation(folds=5, fold=k), HeldOut(fraction=0.1))) for k in range(5)]
    assert len({tuple(fold.test.tolist()) for fold in folds}) == 1
    validated = sorted(number for fold in folds for number in fold.validation.tolist())
    assert validated == sorted(set(range(3000)) - set(folds[0].test.tolist()))
    # 180 clusters each, give or take 12.
    assert all(540 - 4 * 36 < len(fold.validation) < 540 + 4 * 36 for fold in folds)


def test_folds_of_few_rows_are_of_one_size() -> None:
    rows = [(number, None) for number in range(23)]
    folds = [divide(rows, dataset(Validation(folds=10, fold=k))) for k in range(10)]
    assert sorted(number for fold in folds for number in fold.validation.tolist()) == list(range(23))
    assert sorted(len(fold.validation) for fold in folds) == [2] * 7 + [3] * 3


def test_fractions_are_met_as_well_as_chance_has_it_and_another_seed_chooses_others() -> None:
    rows = [(number, None) for number in range(20_000)]
    how = [dataset(Validation(fraction=0.05), HeldOut(fraction=0.1), seed) for seed in (17, 17, 18)]
    first, same, other = (divide(rows, each) for each in how)
    # Binomial: standard deviations of 42 and 31 rows.
    assert abs(len(first.test) - 2000) < 4 * 42
    assert abs(len(first.validation) - 1000) < 4 * 31
    assert sides_of(first) == sides_of(same)
    assert sides_of(first) != sides_of(other)


def test_rows_that_come_later_move_no_other() -> None:
    rows = [(number, number % 700 or None) for number in range(3000)]
    how = dataset(Validation(fraction=0.1), HeldOut(fraction=0.2))
    fold = dataset(Validation(folds=4, fold=1), HeldOut(fraction=0.2))
    more = [(number, None) for number in range(10_000, 12_000)] + [(5, None), (10_001, None)]
    for each in (how, fold):
        before, after = divide(rows, each), divide([*rows, *more], each)
        kept = [[number for number in side if number < len(rows)] for side in sides_of(after)]
        assert kept == sides_of(before)


def test_a_larger_fraction_holds_the_smaller_one() -> None:
    rows = [(number, None) for number in range(2000)]
    tests = [set(divide(rows, dataset(test=HeldOut(fraction=f))).test.tolist()) for f in (0.05, 0.1, 0.3)]
    assert tests[0] < tests[1] < tests[2]


def test_a_side_that_chance_leaves_empty_is_filled_to_half() -> None:
    for seed in range(40):
        sides = divide([(n, None) for n in range(20)], dataset(Validation(fraction=0.1), HeldOut(fraction=0.1), seed))
        assert len(sides.test) >= 1
        assert len(sides.validation) >= 1


@pytest.mark.parametrize("seed", range(20))
def test_half_of_a_side_is_filled_with_clusters_of_any_size(seed: int) -> None:
    """As of pairs of answers: of clusters of two rows no number makes five, and four are less than half of ten."""
    sides = divide([(number // 2, None) for number in range(48)], dataset(Validation(fraction=0.2), seed=seed))
    assert len(sides.validation) >= 5
    assert len(sides.training) + len(sides.validation) == 48


def test_near_duplicates_are_on_one_side() -> None:
    near = [number // 4 for number in range(400)]
    clusters = clusters_of([(number, None) for number in range(400)], near)
    assert len(clusters.names) == 100
    sides = split(clusters, np.zeros(400, np.int8), dataset(test=HeldOut(fraction=0.2)))
    assert {number // 4 for number in sides.test.tolist()}.isdisjoint(number // 4 for number in sides.training.tolist())


def test_a_cluster_is_named_for_its_smallest_group_else_its_smallest_answer() -> None:
    clusters = clusters_of([(1, 5), (2, 5), (2, 6), (3, None), (4, None), (3, None)])
    names = [name.tobytes() for name in clusters.names]
    assert names[clusters.of_row[0]] == min(key("group", 5), key("group", 6))
    assert names[clusters.of_row[3]] == key("answer", 3)
    assert len(names) == 3


def test_each_stratum_has_its_share_of_each_side() -> None:
    strata = [0] * 900 + [1] * 90 + [2] * 10
    rows = [(number, None) for number in range(1000)]
    sides = divide(rows, dataset(Validation(fraction=0.1), HeldOut(fraction=0.2)), strata=strata)
    counts = [np.bincount([strata[number] for number in side], minlength=3).tolist() for side in sides_of(sides)]
    assert counts == [[630, 63, 7], [90, 9, 1], [180, 18, 2]]
    folds = [divide(rows, dataset(Validation(folds=5, fold=k)), strata=strata) for k in range(5)]
    assert {tuple(np.bincount([strata[n] for n in fold.validation.tolist()])) for fold in folds} == {(180, 18, 2)}
    shuffled = np.random.default_rng(0).permutation(1000).tolist()
    again = divide(
        [rows[n] for n in shuffled],
        dataset(Validation(fraction=0.1), HeldOut(fraction=0.2)),
        strata=[strata[n] for n in shuffled],
    )
    assert [sorted(shuffled[n] for n in side) for side in sides_of(again)] == sides_of(sides)


def test_a_frequent_answer_does_not_burst_a_small_side() -> None:
    for seed in range(20):
        rows = [(0, None)] * 138 + [(number, None) for number in range(1, 2000)]
        sides = divide(rows, dataset(test=HeldOut(fraction=0.01), seed=seed))
        assert 11 <= len(sides.test) < 21 + 4 * 5


def test_training_rows_whose_answer_is_held_out_are_removed_and_counted() -> None:
    rows = [(1, None), (2, None), (2, 7), (3, 7), (4, None), (2, None), (9, None)]
    sides = divide(rows, dataset(test=HeldOut(uri=URI)), [TRAINING] * 5 + [TEST] * 2)
    assert sides_of(sides) == [[0, 4], [], [5, 6]], "row 3 shares the group of a row with a held-out answer"
    assert sides.leaked.tolist() == [1, 2, 3]
    kept = split(
        clusters_of([(1, None), (2, None), (2, None)]),
        np.array([TRAINING, TRAINING, TEST], np.int8),
        dataset(test=HeldOut(uri=URI)),
        keep_leaked=True,
    )
    assert sides_of(kept) == [[0, 1], [], [2]], "only if dataset.cleaning.overlap says Keep"


IMPOSSIBLE = {
    "two labels": ([(n % 2, None) for n in range(100)], dataset(test=HeldOut(fraction=0.1)), None, "2 distinct"),
    "fewer answers than folds": ([(0, None), (1, None)], dataset(Validation(folds=3, fold=0)), None, "3 folds"),
    "one row": ([(0, None)], dataset(test=HeldOut(fraction=0.1)), None, "training"),
    "held-out data that is the training data": (
        [(0, None), (1, None), (0, None), (1, None)],
        dataset(test=HeldOut(uri=URI)),
        [TRAINING, TRAINING, TEST, TEST],
        "training",
    ),
}


@pytest.mark.parametrize("name", IMPOSSIBLE)
def test_a_split_that_cannot_be_made_says_why(name: str) -> None:
    rows, how, source, words = IMPOSSIBLE[name]
    with pytest.raises(DataInvalid, match=words) as caught:
        divide(rows, how, source)
    assert caught.value.reason is Reason.SPLIT_IMPOSSIBLE


def test_answers_are_the_same_whatever_their_case_width_and_spacing() -> None:
    def row(answer: str, group: str | None = None) -> Row:
        return Row("here", DatasetFormat.PROMPT_COMPLETION, prompt="p", completion=answer, group=group)

    assert answer_key(row("The  Answer\n")) == answer_key(row("the answer")) == answer_key(row("ｔｈｅ answer"))
    assert answer_key(row("the answer")) != answer_key(row("the answers"))
    assert answer_key(row("the\u200b an\u00adswer\ufe0f")) == answer_key(row("the answer"))
    as_before = hashlib.sha256("answer\0the an\u00adswer".encode()).digest()
    assert answer_keys(row("The an\u00adswer")) == (answer_key(row("the answer")), as_before), "so older lists have it"
    assert answer_keys(row("the answer")) == (answer_key(row("the answer")),)
    assert group_key(row("x", "g\u200b")) == group_key(row("x", "g"))
    assert group_key(row("x")) == NO_KEY
    assert group_key(row("x", "g")) != answer_key(row("g"))
    assert group_key(row("x", "caf\u00e9")) == group_key(row("y", " cafe\u0301\n")) != group_key(row("x", "Caf\u00e9"))
    raw = " cafe\u0301\n"
    as_written = hashlib.sha256(b"group\0" + raw.encode()).digest()
    assert group_keys(row("x", raw)) == (group_key(row("x", raw)), as_written), "lists of before have it as written"
    seen = hashlib.sha256("group\0g\u200b".encode()).digest()
    assert seen in group_keys(row("x", " g\u200b\n")), "nor do those of before last know what nobody sees"
    assert group_keys(row("x", "g")) == (group_key(row("x", "g")),)
    assert group_keys(row("x")) == ()


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(1, 64), max_size=200), st.integers(64, 100))
def test_packing_places_every_row_once_and_never_overfills(lengths: list[int], capacity: int) -> None:
    sequences = pack(np.array(lengths, np.int64), capacity)
    assert sorted(index for sequence in sequences for index in sequence) == list(range(len(lengths)))
    filled = [sum(lengths[index] for index in sequence) for sequence in sequences]
    assert all(0 < tokens <= capacity for tokens in filled)
    # Two sequences that are at most half full would have been one.
    assert sum(2 * tokens <= capacity for tokens in filled) <= 1
    assert sequences == pack(np.array(lengths, np.int64), capacity)


def test_packing_fills_sequences_and_is_fast() -> None:
    lengths = np.random.default_rng(0).integers(20, 600, 20_000)
    sequences = pack(lengths, 1024)
    assert lengths.sum() / (len(sequences) * 1024) > 0.99
