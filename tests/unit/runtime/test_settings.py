"""Settings from the environment."""

from __future__ import annotations

import sys

import pytest
from trimtab_operator.__main__ import main
from trimtab_operator.runtime.settings import Settings, SettingsInvalid, flag, read

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


def test_defaults_of_work_pods() -> None:
    pods = read(IMAGES).domain.work_pods
    assert pods.security_context.to_json() == {"runAsUser": 65532, "runAsGroup": 65532, "fsGroup": 65532}
    chosen = '{"securityContext": {}, "tolerations": [{"key": "gpu", "operator": "Exists"}], "labels": {"team": "a"}}'
    pods = read({**IMAGES, "TRIMTAB_WORK_PODS": chosen}).domain.work_pods
    assert pods.security_context.to_json() == {}
    assert [toleration.key for toleration in pods.tolerations] == ["gpu"]
    assert pods.labels == {"team": "a"}


def test_a_flag_wins_over_its_variable() -> None:
    given = {"node_loss_seconds": "30", "retry_seconds": None}
    settings = read({**IMAGES, "TRIMTAB_NODE_LOSS_SECONDS": "60", "TRIMTAB_RETRY_SECONDS": "5"}, given)
    assert (settings.node_loss_seconds, settings.retry_seconds) == (30, 5)


def test_the_program_lists_a_flag_for_every_setting(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["trimtab-operator", "--help"])
    with pytest.raises(SystemExit):
        main()
    said = capsys.readouterr().out
    assert all(f"{flag(name)} VALUE" in said for name in Settings.model_fields)


def test_a_flag_that_cannot_be_used_ends_the_program(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", ["trimtab-operator", "--workers=many"])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert "TRIMTAB_WORKERS" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("TRIMTAB_WORK_PODS", '{"tolerances": []}'),
        ("TRIMTAB_NOTIFICATIONS.0.url", '[{"name": "a", "secretName": "a", "url": "ftp://a"}]'),
        ("TRIMTAB_NOTIFICATIONS.1", '[{"name": "a", "secretName": "a"}, {"name": "b"}]'),
        ("TRIMTAB_NOTIFICATIONS", '[{"name": "a", "secretName": "a"}, {"name": "a", "secretName": "b"}]'),
        ("TRIMTAB_NOTIFICATIONS", "{}"),
        ("TRIMTAB_NOTIFICATIONS", "[{"),
        ("TRIMTAB_WORK_PODS.securityContext.runAsUser", '{"securityContext": {"runAsUser": 0}}'),
        ("TRIMTAB_WORK_PODS", '{"securityContext": {"privileged": true}}'),
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
        read({**IMAGES, name.partition(".")[0]: value})


def test_every_bad_value_is_named_at_once() -> None:
    with pytest.raises(SettingsInvalid) as raised:
        read({"TRIMTAB_WORKERS": "x"})
    assert len(str(raised.value).splitlines()) == 3
