"""Every family of language models that transformers has is trained, or refused before a GPU is asked for."""

from __future__ import annotations

import pytest
from trimtab_trainer.base.unsupported import REASONS

from tests.trainer.train.families import UNMADE, families

from .table import outcome, rows


@pytest.mark.parametrize("family", families())
def test_what_comes_of_a_family_is_what_the_documentation_says(family: str) -> None:
    assert outcome(family) == rows().get(family), "run python -m tests.architectures.table"


def test_no_family_is_listed_that_transformers_lacks() -> None:
    kinds = {family.partition(":")[0] for family in families()}
    assert {kind for listed in REASONS.values() for kind in listed} <= kinds
    assert set(UNMADE) <= set(families())
    assert set(rows()) == set(families())
