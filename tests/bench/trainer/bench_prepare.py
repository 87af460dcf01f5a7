"""Prepares data at scale: rows a second and peak memory, with near duplicates removed; and how well these are found.

    PYTHONPATH=. python tests/bench/trainer/bench_prepare.py \\
        [--sizes 10000,100000,1000000] [--pairs 5000] [--folder FOLDER]

Rows have 500 tokens of a tiny tokenizer (about 90 words); one in ten is a near duplicate of another. Each size is
prepared by the command, in processes of its own, from a file to a view; memory is the most that all of them together
hold (resident, shared pages counted in each). Pairs are planted at similarities that are spread from 0.5 to 1, and
found at 0.8, by ours and by datasketch on the same rows. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from trimtab_trainer.data.cleaning.nearduplicates import (
    PERMUTATIONS,
    comparing,
    join_near_duplicates,
    sample,
    write_bands,
)
from trimtab_trainer.data.cleaning.shingles import SHINGLE_WORDS, Shingler, similarity, words
from trimtab_trainer.data.rows import identities_of

from tests.trainer.tiny import make_tiny_model

THRESHOLD = 0.8
WORDS = 88
POLL_SECONDS = 0.25


def main() -> None:
    """Measure all, or the sizes that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--sizes", default="10000,100000,1000000", help="numbers of rows")
    parser.add_argument("--words", type=int, default=WORDS, help="words of a row: 88 are 500 tokens")
    parser.add_argument("--pairs", type=int, default=5000, help="planted pairs of near duplicates")
    parser.add_argument("--folder", type=Path, help="where to work; it needs about 12 kB a row")
    options = parser.parse_args()
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
        for size in [int(each) for each in options.sizes.split(",") if each]:
            found = prepared(size, options.words, Path(scratch) / str(size))
            print(json.dumps({"rows": size, **found}), flush=True)
            figures |= {f"{name}_{size}": value for name, value in found.items()}
            figures["rows_per_second"] = found["rows_per_second"]
        if options.pairs:
            figures |= pairs(options.pairs, Path(scratch))
    print(json.dumps(figures))


def vocabulary() -> list[str]:
    """Return words of five letters."""
    random = np.random.default_rng(1)
    letters = np.array(list("abcdefghijklmnopqrstuvwxyz"))
    return sorted({"".join(word) for word in letters[random.integers(0, 26, (20_000, 5))]})


def texts(count: int, length: int) -> Iterator[list[str]]:
    """Yield the words of rows; each tenth repeats the one nine before it, but for a word."""
    known = np.array(vocabulary())
    random = np.random.default_rng(2)
    kept: list[str] = []
    for number in range(count):
        if number % 10 == 9:
            text = list(kept)
            text[int(random.integers(0, len(text)))] = str(known[random.integers(0, len(known))])
        else:
            text = known[random.integers(0, len(known), length)].tolist()
        if number % 10 == 0:
            kept = text
        yield text


def prepared(size: int, length: int, folder: Path) -> dict[str, Any]:
    """Prepare so many rows; return the figures."""
    make_tiny_model(folder / "base", chat_template=None)
    (folder / "data").mkdir()
    with (folder / "data/train.jsonl").open("w") as file:
        for text in texts(size, length):
            prompt, completion = " ".join(text[: length // 4]), " " + " ".join(text[length // 4 :])
            file.write(json.dumps({"prompt": prompt, "completion": completion}) + "\n")
    run = {
        "baseModel": {"uri": (folder / "base").as_uri()},
        "dataset": {
            "training": {"uri": (folder / "data").as_uri() + "/"},
            "test": {"fraction": 0.02},
            "cleaning": {"nearDuplicates": "Drop"},
        },
        "output": {"uri": (folder / "output").as_uri()},
        "training": {"maxSequenceLength": 512},
    }
    (folder / "run.json").write_text(json.dumps(run))
    command = [sys.executable, "-m", "trimtab_trainer", "prepare", "--config", str(folder / "run.json")]
    started = time.monotonic()
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)
        peak, used = 0.0, 0.0
        while process.poll() is None:
            memory, seconds = resources(process.pid)
            peak, used = max(peak, memory), max(used, seconds)
            time.sleep(POLL_SECONDS)
    taken = time.monotonic() - started
    said = [json.loads(line) for line in (folder / "log").read_text().splitlines() if line.startswith("{")]
    if process.returncode:
        raise SystemExit(f"prepare ended with {process.returncode}: {said[-1] if said else 'nothing said'}")
    done = next(line for line in said if line.get("message") == "prepared")
    return {
        "rows_per_second": round(size / taken, 1),
        "seconds": round(taken, 1),
        "processor_seconds": round(used, 1),
        "peak_mib": round(peak, 1),
        "tokens_a_row": round(done["tokens"] / max(1, done["rows"])),
        "dropped": done["dropped"],
        "processors": len(os.sched_getaffinity(0)),
    }


def resources(session: int) -> tuple[float, float]:
    """Return the resident memory of all processes of a session in MiB, and the processor time that they have used."""
    pages, ticks = 0, 0
    for folder in Path("/proc").iterdir():
        try:
            about = (folder / "stat").read_text().rpartition(")")[2].split() if folder.name.isdigit() else []
            if about and about[3] == str(session):
                pages += int((folder / "statm").read_text().split()[1])
                # Of itself, and of children that have ended.
                ticks += sum(int(value) for value in about[11:15])
        except OSError:  # it ended meanwhile
            continue
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20, ticks / os.sysconf("SC_CLK_TCK")


def pairs(count: int, folder: Path) -> dict[str, Any]:
    """Plant pairs; return how many of those from the threshold on are found, and how many found ones are such."""
    known, random, shingler = vocabulary(), np.random.default_rng(3), Shingler()
    written: list[str] = []
    alike: dict[tuple[int, int], float] = {}
    for number in range(2 * count):
        text = [known[word] for word in random.integers(0, len(known), random.integers(30, 300))]
        written.append(" ".join(text))
        if number % 2:
            for place in random.integers(0, len(text), random.integers(1, 2 + len(text) // 10)):
                text[place] = known[int(random.integers(0, len(known)))]
            written.append(" ".join(text))
            last = len(written) - 1
            alike[last - 1, last] = similarity(shingler(written[last - 1]), shingler(written[last]))
    wanted = {pair for pair, value in alike.items() if value >= THRESHOLD}
    figures: dict[str, Any] = {"pairs": len(alike), "pairs_from_threshold": len(wanted)}
    for name, find in (("", ours), ("datasketch_", datasketch)):
        started = time.process_time()
        found = find(written, folder)
        hits = len(found & wanted)
        figures |= {
            f"{name}recall": round(hits / len(wanted), 4),
            f"{name}precision": round(hits / max(1, len(found)), 4),
            f"{name}pairs_rows_per_second": round(len(written) / (time.process_time() - started), 1),
        }
    return figures


def ours(written: Sequence[str], folder: Path) -> set[tuple[int, int]]:
    """Return the pairs of rows that are linked."""
    identities = identities_of([hashlib.sha256(text.encode()).digest()[:16] for text in written])
    how = comparing(written[row] for row in sample(identities))
    write_bands(written, how, folder / "bands.npy")
    components = join_near_duplicates([folder / "bands.npy"], identities, lambda row: written[row], how, THRESHOLD)
    groups: dict[int, list[int]] = {}
    for row, root in enumerate(components.roots().tolist()):
        groups.setdefault(root, []).append(row)
    return {(a, b) for rows in groups.values() for index, a in enumerate(rows) for b in rows[index + 1 :]}


def datasketch(written: Sequence[str], _: Path) -> set[tuple[int, int]]:
    """Return the pairs that datasketch's LSH finds, with as many permutations and its own choice of bands."""
    from datasketch import MinHash, MinHashLSH

    index = MinHashLSH(threshold=THRESHOLD, num_perm=PERMUTATIONS)
    found: set[tuple[int, int]] = set()
    for row, text in enumerate(written):
        said = words(text)
        grams = [" ".join(said[n : n + SHINGLE_WORDS]).encode() for n in range(max(1, len(said) - SHINGLE_WORDS + 1))]
        sketch = MinHash(num_perm=PERMUTATIONS, seed=17)
        sketch.update_batch(grams)
        found.update((other, row) for other in index.query(sketch))
        index.insert(row, sketch)
    return found


if __name__ == "__main__":
    main()
