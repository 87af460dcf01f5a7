"""Which rows of a task are drawn together when it is resampled: clusters of rows that say much the same.

Rows are one cluster if they

- have the same value in the column `group`, as when training's data is split (not where groupBy is that very column:
  there the groups are what is compared, and rows are drawn inside of them);
- have the same answer of at least `ANSWER_WORDS` words, blind to case, width, spacing and what nobody sees: many
  questions about one fact. Only of Perplexity and Generation tasks with prompts: labels, choices and numbers are shared
  by chance, and short answers too, so they join nothing;
- ask the same, where a model says one thing to one prompt (not of Perplexity and Preference, where each answer is one
  of the row's own); of choices they are a part of what is asked;
- are of one pair, by the column `pairs`;
- are of one conversation, each of whose turns is asked for;
- are near duplicates: prompt and answer share at least `SIMILARITY` of their word `SHINGLE_WORDS`-grams (Jaccard).
  System messages do not count, nor do word groups that are in more than `COMMON_SHARE` of the rows (and in more than
  `COMMON_ROWS`): they are the instruction that all rows repeat, by which every row would be every other's duplicate.

Candidates for the last come from MinHash with locality-sensitive hashing (Broder 1997; Leskovec, Rajaraman, Ullman,
Mining of Massive Datasets, 3.4): `BANDS` bands of 6 values find a pair at the bound with probability
1 - (1 - 0.8^6)^32 > 0.9999. Each candidate's similarity is then computed exactly.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable

from rensa import RMinHash, RMinHashLSH

from ...contract import DatasetFormat, EvaluationTask, TaskType, canonical_json
from ...data.cleaning.clusters import answer_key, answer_keys, group_key, group_keys
from ...data.reading.messages import spoken
from ...invisible import without_invisible
from .questions import Question

SIMILARITY = 0.8
SHINGLE_WORDS = 3
ANSWER_WORDS = 4
COMMON_SHARE, COMMON_ROWS = 0.05, 20
PERMUTATIONS, BANDS = 192, 32
SEED = 17
WORD = re.compile(r"\w+")

Shingles = frozenset[str]


class Components:
    """Rows joined into connected components (union-find, path halving)."""

    def __init__(self, count: int) -> None:
        self._parents = list(range(count))

    def root(self, row: int) -> int:
        """Return the row that stands for a row's component."""
        parents = self._parents
        while parents[row] != row:
            parents[row] = parents[parents[row]]
            row = parents[row]
        return row

    def join(self, left: int, right: int) -> None:
        """Make one component of two rows' components."""
        left, right = self.root(left), self.root(right)
        self._parents[max(left, right)] = min(left, right)

    def numbers(self) -> list[int]:
        """Return each row's component, counted from 0 in the order of their first rows."""
        order: dict[int, int] = {}
        return [order.setdefault(self.root(row), len(order)) for row in range(len(self._parents))]


def clusters(task: EvaluationTask, questions: list[Question]) -> list[int]:
    """Return the cluster of each question of a task, counted from 0."""
    components = Components(len(questions))
    first: dict[bytes, int] = {}
    for number, question in enumerate(questions):
        for key in _joining_keys(task, question):
            components.join(number, first.setdefault(key, number))
    join_near_duplicates([shingles(_text(question)) for question in questions], components)
    return components.numbers()


def leak_keys(task: EvaluationTask, question: Question) -> tuple[bytes, ...]:
    """Return the keys by which a row is recognised among those that were trained on: its group's and its answer's.

    The answer of a label, a choice or a number says nothing; every other one does, however short it is: training itself
    never puts two rows with one answer on two sides.
    """
    keys = group_keys(question.row)
    if not has_answer_of_its_own(task):
        return keys
    # Of a pair what is asked: as pairs are trained on; and either answer, as others are.
    return (*keys, *(key for row in (question.row, *question.row.answers) for key in answer_keys(row)))


def shingles(text: str) -> Shingles:
    """Return the word 3-grams of a text, blind to case, width and punctuation; of a shorter one all its words."""
    words = WORD.findall(unicodedata.normalize("NFKC", without_invisible(text)).casefold())
    count = max(1, len(words) - SHINGLE_WORDS + 1) if words else 0
    return frozenset(" ".join(words[start : start + SHINGLE_WORDS]) for start in range(count))


def join_near_duplicates(rows: list[Shingles], components: Components) -> None:
    """Join rows that share at least `SIMILARITY` of their shingles, common ones left out."""
    rows = _distinctive(rows)
    index = RMinHashLSH(threshold=SIMILARITY, num_perm=PERMUTATIONS, num_bands=BANDS)
    for number, own in enumerate(rows):
        if not own:
            continue
        sketch = RMinHash(num_perm=PERMUTATIONS, seed=SEED)
        sketch.update(sorted(own))
        for other in index.query(sketch):
            if components.root(other) != components.root(number) and _similarity(own, rows[other]) >= SIMILARITY:
                components.join(number, other)
        index.insert(number, sketch)


def _distinctive(rows: list[Shingles]) -> list[Shingles]:
    counts = Counter(shingle for row in rows for shingle in row)
    bound = max(COMMON_ROWS, COMMON_SHARE * len(rows))
    common = {shingle for shingle, count in counts.items() if count > bound}
    return [row - common for row in rows]


def _similarity(left: Shingles, right: Shingles) -> float:
    shared = len(left & right)
    return shared / (len(left) + len(right) - shared)


def _joining_keys(task: EvaluationTask, question: Question) -> Iterable[bytes]:
    row = question.row
    if question.conversation is not None:
        yield b"conversation" + question.conversation
    if question.pair is not None:
        yield b"pair" + question.pair.encode()
    if task.type not in (TaskType.PERPLEXITY, TaskType.PREFERENCE):
        choices = question.choices if task.type is TaskType.MULTIPLE_CHOICE else ()
        yield b"asked" + canonical_json([question.prompt, row.tools, choices])
    if row.group is not None and task.group_by != "group":
        yield group_key(row)
    if has_answer_of_its_own(task) and row.format is not DatasetFormat.TEXT and len(row.unit.split()) >= ANSWER_WORDS:
        yield answer_key(row)


def has_answer_of_its_own(task: EvaluationTask) -> bool:
    """Tell whether answers are told apart by what they say: labels, choices and numbers are shared by chance."""
    return task.type in (TaskType.PERPLEXITY, TaskType.GENERATION, TaskType.PREFERENCE, TaskType.JUDGE)


def _text(question: Question) -> str:
    row = question.row
    said = [spoken(message) for message in row.messages if message["role"] != "system"]
    return "\n".join((*said, row.prompt, row.completion, row.text, *(each.answer for each in row.answers)))
