"""A share as an operator writes it, and what a refusal says."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from trimtab_agent.contract import Share
from trimtab_agent.documents import Refused, read_share

DIGEST = "sha256:" + "a" * 64
NAME = "guide@aaaaaaaa"


def share(**changes: Any) -> Share:
    document: dict[str, Any] = {
        "namespace": "team",
        "rollout": "guide",
        "uid": "u1",
        "sequence": [1, 5],
        "adapterName": "guide",
        "revisions": [{"name": NAME, "uri": "s3://adapters/x", "digest": DIGEST}],
        "aliases": {"guide": {NAME: 100}},
    }
    return read_share(json.dumps({**document, **changes}).encode())


def refused(call: Callable[[], object]) -> tuple[int, str]:
    with pytest.raises(Refused) as caught:
        call()
    assert caught.value.message
    return caught.value.status, caught.value.reason
