"""The tables of model classes, read without torch, are those of transformers."""

from __future__ import annotations

import pytest
from trimtab_trainer.base.families import TEXT, WITH_OTHERS, classes


@pytest.mark.parametrize("table", [TEXT, WITH_OTHERS])
def test_the_table_is_that_of_transformers(table: str) -> None:
    from transformers.models.auto import modeling_auto

    assert dict(classes(table)) == dict(getattr(modeling_auto, table))
