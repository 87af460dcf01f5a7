"""The engine to compare with differs from the one that deploy/serving makes in agent and guard alone."""

from __future__ import annotations

import copy
import json

from tests.bench.serving.bare_engine import without_trimtab
from tests.unit.samples.test_serving import DEPLOYMENT, ENGINE, POD

GIVEN = copy.deepcopy(DEPLOYMENT)
BARE = without_trimtab(DEPLOYMENT, "bare")
BARE_POD = BARE["spec"]["template"]["spec"]
(BARE_ENGINE,) = BARE_POD["containers"]


def test_nothing_of_trimtab_is_left_but_the_image_that_fetches_the_base_model() -> None:
    (fetch,) = BARE_POD["initContainers"]
    assert fetch == POD["initContainers"][0]
    others = json.dumps([BARE["metadata"], BARE["spec"]["selector"], BARE_POD["containers"], BARE_POD["volumes"]])
    assert "trimtab" not in others


def test_its_pods_are_found_by_no_selector_of_the_other() -> None:
    assert BARE["spec"]["template"]["metadata"]["labels"] == BARE["spec"]["selector"]["matchLabels"] == {"app": "bare"}


def test_the_engine_is_started_with_all_other_arguments_and_variables() -> None:
    assert [argument for argument in ENGINE["args"] if argument not in BARE_ENGINE["args"]] == [
        "--middleware=trimtab_guard.Guard"
    ]
    assert [variable["name"] for variable in ENGINE["env"] if variable not in BARE_ENGINE["env"]] == ["PYTHONPATH"]
    same = ("image", "command", "ports", "resources", "securityContext", "lifecycle")
    assert {key: BARE_ENGINE[key] for key in same} == {key: ENGINE[key] for key in same}


def test_the_engine_is_probed_as_often_as_the_guard() -> None:
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        assert BARE_ENGINE[probe] == {**ENGINE[probe], "httpGet": {**ENGINE[probe]["httpGet"], "path": "/health"}}


def test_every_mount_has_its_volume() -> None:
    containers = (*BARE_POD["initContainers"], *BARE_POD["containers"])
    used = {mount["name"] for container in containers for mount in container["volumeMounts"]}
    assert used == {volume["name"] for volume in BARE_POD["volumes"]}


def test_what_is_given_stays_as_it_is() -> None:
    assert DEPLOYMENT == GIVEN
