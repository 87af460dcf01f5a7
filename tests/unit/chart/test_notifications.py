"""Endpoints of notifications in the chart: what the operator is given of them, what it may reach and write for them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from helm_python import HelmError
from trimtab_operator.domain.kinds import KINDS
from trimtab_operator.runtime.settings import read

from tests.unit.chart.chart import DIRECTORY, Rendered

BUS = {"name": "bus", "url": "https://bus.example/in", "secretName": "bus-key", "cluster": "prod", "namespaces": ["a"]}
CHAT = {"name": "chat", "secretName": "chat-hook", "format": "Slack", "kinds": ["Review"], "reasons": ["Approved"]}
OPEN = {"name": "open", "url": "http://relay.tools.svc:8080/slack", "format": "Slack"}
TOLD: dict[str, Any] = {"notifications": [BUS, CHAT, OPEN]}


def test_without_endpoints_nothing_of_them_is_there() -> None:
    assert read(Rendered().environment).notifications == ()
    text = json.dumps(Rendered().objects)
    assert "-notifications" not in text
    assert "notify-" not in text


def test_what_the_chart_renders_is_what_the_operator_reads() -> None:
    told = read(Rendered(TOLD).environment)
    assert [endpoint.name for endpoint in told.notifications] == ["bus", "chat", "open"]
    assert told.notifications[1].reasons == ["Approved"]
    assert str(told.notification_secrets) == "/etc/trimtab/notifications"


def test_each_secret_is_a_folder_of_files_and_may_come_later() -> None:
    rendered = Rendered(TOLD)
    volumes = {each["name"]: each["secret"] for each in rendered.pod["spec"]["volumes"] if "notify" in each["name"]}
    assert {name: (each["secretName"], each["optional"]) for name, each in volumes.items()} == {
        "notify-bus": ("bus-key", True),
        "notify-chat": ("chat-hook", True),
    }
    mounts = {each["name"]: each for each in rendered.container["volumeMounts"] if "notify" in each["name"]}
    assert {name: (each["mountPath"], each["readOnly"]) for name, each in mounts.items()} == {
        "notify-bus": ("/etc/trimtab/notifications/bus", True),
        "notify-chat": ("/etc/trimtab/notifications/chat", True),
    }
    assert "bus-key" not in json.dumps(rendered.all("Role") + rendered.all("ClusterRole"))


def test_the_way_out_is_a_policy_of_its_own() -> None:
    policy = Rendered(TOLD).one("NetworkPolicy", "trimtab-notifications")["spec"]
    assert policy["policyTypes"] == ["Egress"]
    assert policy["egress"] == [{"ports": [{"protocol": "TCP", "port": 443}]}]
    assert Rendered(TOLD).one("NetworkPolicy", "trimtab") == Rendered().one("NetworkPolicy", "trimtab")
    assert not Rendered({**TOLD, "networkPolicy": {"enabled": False}}).all("NetworkPolicy")


def test_of_config_maps_only_the_record_may_be_changed() -> None:
    (role,) = [each for each in Rendered(TOLD).all("Role") if each["metadata"]["name"] == "trimtab-leader"]
    rules = [rule for rule in role["rules"] if rule["resources"] == ["configmaps"]]
    assert rules == [
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create"]},
        {
            "apiGroups": [""],
            "resources": ["configmaps"],
            "resourceNames": ["trimtab-notifications"],
            "verbs": ["get", "patch"],
        },
    ]


def test_the_schema_knows_every_kind() -> None:
    schema = json.loads((DIRECTORY / "values.schema.json").read_text())
    assert schema["properties"]["notifications"]["items"]["properties"]["kinds"]["items"]["enum"] == list(KINDS)


@pytest.mark.parametrize("wrong", [{"name": "My Bus"}, {"format": "Teams"}, {"kinds": ["Job"]}, {"key": "whsec_x"}])
def test_what_is_none_of_its_words_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(HelmError, match="notifications"):
        Rendered({"notifications": [{**BUS, **wrong}]})
