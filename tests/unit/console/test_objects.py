"""What the console is tested with is what the API server takes."""

from __future__ import annotations

from typing import Any

import pytest
from trimtab_operator.domain.kinds import KINDS

from tests.console.objects import team

MODELS = {kind.crd.model.__name__: kind.crd.model for kind in KINDS.values()}


@pytest.mark.parametrize("body", team(), ids=lambda body: f"{body['kind']} {body['metadata']['name']}")
def test_an_object_of_the_team_is_one(body: dict[str, Any]) -> None:
    MODELS[body["kind"]].model_validate({**body, "metadata": {**body["metadata"], "namespace": "a", "uid": "u"}})
