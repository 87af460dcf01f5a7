"""Near duplicates: found at the similarity that is stated, the same whatever the order of rows and their files."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from rensa import RMinHash
from trimtab_trainer.data.cleaning import shingles
from trimtab_trainer.data.cleaning.nearduplicates import comparing, join_near_duplicates, sample, write_bands
from trimtab_trainer.data.cleaning.shingles import Shingler, similarity, words
from trimtab_trainer.data.rows import identities_of

VOCABULARY = [f"w{number:x}" for number in range(20_000)]


def planted(pairs: int, alone: int, seed: int = 0) -> tuple[list[str], list[tuple[int, int, float]]]:
    """Return texts of 40 to 200 words, and pairs of them with their Jaccard similarity, spread from 0.5 to 1."""
    random, shingler = np.random.default_rng(seed), Shingler()
    texts: list[str] = []
    found = []
    for number in range(pairs + alone):
        text = [VOCABULARY[word] for word in random.integers(0, len(VOCABULARY), random.integers(40, 200))]
        texts.append(" ".join(text))
        if number < pairs:
            for place in random.integers(0, len(text), random.integers(1, 1 + len(text) // 12)):
                text[place] = VOCABULARY[random.integers(0, len(VOCABULARY))]
            texts.append(" ".join(text))
            found.append((len(texts) - 2, len(texts) - 1, similarity(shingler(texts[-2]), shingler(texts[-1]))))
    return texts, found


def clusters(texts: Sequence[str], folder: Path, threshold: float = 0.8, parts: int = 1) -> list[set[str]]:
    """Return the texts that are linked, each cluster of more than one."""
    identities = identities_of([hashlib.sha256(text.encode()).digest()[:16] for text in texts])
    how = comparing(texts[number] for number in sample(identities).tolist())
    files = []
    for number, part in enumerate(np.array_split(np.arange(len(texts)), parts)):
        write_bands([texts[int(row)] for row in part], how, file := folder / f"{len(texts)}-{parts}-{number}.npy")
        files.append(file)
    roots = join_near_duplicates(files, identities, lambda row: texts[row], how, threshold).roots()
    found = [{texts[int(row)] for row in np.flatnonzero(roots == root)} for root in np.unique(roots)]
    return sorted((cluster for cluster in found if len(cluster) > 1), key=sorted)


@pytest.mark.parametrize("threshold", [0.7, 0.8, 0.9])
def test_pairs_are_found_from_the_stated_similarity_on_and_no_others(tmp_path: Path, threshold: float) -> None:
    texts, pairs = planted(pairs=400, alone=200)
    found = {frozenset(cluster) for cluster in clusters(texts, tmp_path, threshold)}
    wanted = {frozenset((texts[a], texts[b])) for a, b, alike in pairs if alike >= threshold}
    assert found <= wanted, "precision is 1: every candidate is compared"
    # 1 - (1 - 0.7^6)^32 = 0.98 at the lowest threshold, and more above it.
    assert len(found) >= 0.98 * len(wanted) > 50


def test_clusters_are_the_same_for_any_order_and_any_division(tmp_path: Path) -> None:
    texts, _ = planted(pairs=120, alone=50)
    # A chain, of which neighbours are alike and the ends are not, and many copies that share every band.
    chain = [" ".join(VOCABULARY[n : n + 100]) for n in range(0, 60, 4)]
    copies = [" ".join(VOCABULARY[500:640]) + f" {VOCABULARY[n]}" for n in range(1000, 1060)]
    texts += chain + copies
    wanted = clusters(texts, tmp_path)
    assert set(chain) in wanted
    assert set(copies) in wanted
    for seed, parts in ((1, 1), (2, 3), (3, 11)):
        order = np.random.default_rng(seed).permutation(len(texts))
        assert clusters([texts[n] for n in order], tmp_path, parts=parts) == wanted


def test_case_width_and_punctuation_make_no_difference_and_han_counts_by_characters(tmp_path: Path) -> None:
    text = "The Quick brown fox jumps over the lazy dog, and what it finds is a FIELD of numbers: 1 2 3."
    same = "the quick brown fox jumps over the lazy dog and what it finds is a field of numbers １ ２ ３"
    assert clusters([text, same], tmp_path) == [{text, same}]
    assert words("東京タワー is high") == [*"東京タワー", "is", "high"]
    han = "我们在这个城市里找到了一家非常好的餐厅并且吃了一顿美味的晚餐然后回家休息了很久才睡觉"
    assert clusters([han, han[:-1]], tmp_path) == [{han, han[:-1]}]


def test_an_instruction_that_all_rows_repeat_makes_no_duplicates(tmp_path: Path) -> None:
    instruction = " ".join(VOCABULARY[:150])
    texts = [f"{instruction} {' '.join(VOCABULARY[300 + 12 * n : 312 + 12 * n])}" for n in range(60)]
    one, other = Shingler()(texts[0]), Shingler()(texts[1])
    assert similarity(one, other) > 0.8
    assert clusters(texts, tmp_path) == []


def test_texts_without_words_are_alike_to_none(tmp_path: Path) -> None:
    assert clusters(["", "!!", "...", "one", "one two"], tmp_path) == []


def test_hashes_are_these_on_every_machine_and_whatever_was_hashed_before(monkeypatch: pytest.MonkeyPatch) -> None:
    shingler = Shingler()
    pinned = [2906199179861875123, 14665123811010692880]
    assert shingler("Über allen Gipfeln ist").tolist() == pinned
    monkeypatch.setattr(shingles, "REMEMBERED_WORDS", 2)
    assert Shingler()("Über allen Gipfeln ist").tolist() == pinned
    hashes = np.array([1, 2, 3, 9], np.uint64)
    matrix = RMinHash.digest_matrix_from_flat_token_hashes(hashes, np.array([0, 3, 4]), 4, 17)
    assert matrix.to_rows() == [
        [374822053, 1858951295, 285915532, 610237248],
        [3734554231, 1981255045, 183682000, 3033057876],
    ]
