"""The packed outcome of an evaluation is a pod's word: it is parsed within bounds, and refused by ValueError alone."""

from __future__ import annotations

import base64
import json
import tracemalloc
import zlib

import pytest
from trimtab_trainer.contract.evaluation import OUTCOME_BYTES, EvaluationOutcome


def packed(data: bytes) -> str:
    return base64.b85encode(zlib.compress(data, 9)).decode()


KNOWN = {"reportUri": "s3://b/r", "resultsDigest": "sha256:" + "0" * 64, "results": [], "checks": []}

HOSTILE = {
    "not base85": "\x00",
    "not deflated": base64.b85encode(b"x" * 40).decode(),
    "cut off": packed(json.dumps({"results": [], "checks": []}).encode())[:-5],
    "nested": packed(b"[" * 500_000),
    "a list": packed(b"[1]"),
    "columns of other lengths": packed(b'{"results": [[1], [1, 2]], "checks": []}'),
    "a number for columns": packed(b'{"results": 1, "checks": 2}'),
    "a figure that is none": packed(b'{"results": [[["x"]]], "checks": [], "reportUri": 1, "resultsDigest": 1}'),
    "rows that no API holds": packed(
        json.dumps({**KNOWN, "rows": 10**30}).encode(),
    ),
    "an address longer than a status holds": packed(json.dumps({**KNOWN, "reportUri": "s3://" + "y" * 1300}).encode()),
    "not UTF-8": packed(b"\xff\xfe\xfd"),
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_what_is_no_outcome_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"\w"):
        EvaluationOutcome.unpack(text)


def test_what_unpacks_to_more_than_an_outcome_can_be_is_not_unpacked() -> None:
    bomb = packed(b" " * (64 << 20))
    assert len(bomb) < 100_000
    tracemalloc.start()
    with pytest.raises(ValueError, match=str(OUTCOME_BYTES)):
        EvaluationOutcome.unpack(bomb)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 * OUTCOME_BYTES < 64 << 20
