"""Settings from the environment."""

from __future__ import annotations

import pytest
from trimtab_operator.runtime.settings import SettingsInvalid, read

IMAGES = {"TRIMTAB_PREPARE_IMAGE": "prepare:1", "TRIMTAB_TRAINER_IMAGE": "trainer:1"}


def test_defaults_and_empty_variables() -> None:
    settings = read({**IMAGES, "TRIMTAB_LOG_LEVEL": "", "OTHER": "x", "TRIMTAB_TEST_INSTANCE": "3"})
    assert settings.watch_namespaces == ()
    assert settings.domain.node_loss_seconds == 120
    assert settings.domain.trainer_image == "trainer:1"


def test_lists_and_json() -> None:
    settings = read(
        {
            **IMAGES,
            "TRIMTAB_WATCH_NAMESPACES": "a, b,",
            "TRIMTAB_TRAIN_RESOURCES": '{"limits": {"memory": "8Gi"}}',
            "TRIMTAB_SHM_SIZE": "512Mi",
        }
    )
    assert settings.watch_namespaces == ("a", "b")
    assert settings.domain.train_resources == {"limits": {"memory": "8Gi"}}
    assert settings.domain.shared_memory_size == "512Mi"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TRIMTAB_TRAINER_IMAGE", ""),
        ("TRIMTAB_WORKERS", "none"),
        ("TRIMTAB_WORKERS", "0"),
        ("TRIMTAB_IMAGE_PULL_POLICY", "Sometimes"),
        ("TRIMTAB_SCRATCH_SIZE", "lots"),
        ("TRIMTAB_TRAIN_RESOURCES", "{"),
        ("TRIMTAB_TRAIN_RESOURCES", "[]"),
        ("TRIMTAB_LEASE_SECONDS", "1"),
    ],
)
def test_a_bad_value_names_its_variable(name: str, value: str) -> None:
    with pytest.raises(SettingsInvalid, match=name):
        read({**IMAGES, name: value})


def test_every_bad_value_is_named_at_once() -> None:
    with pytest.raises(SettingsInvalid) as raised:
        read({"TRIMTAB_WORKERS": "x"})
    assert len(str(raised.value).splitlines()) == 3
