"""Every documented value does something, the schema knows it, and it refuses what nobody documented."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from helm_python import HelmError, lint

from tests.unit.chart.chart import DIRECTORY, WHOLE, Body, Rendered, documented, keys, nested

DIGEST = "sha256:" + "0" * 64
SELECTOR = [{"podSelector": {"matchLabels": {"app": "prometheus"}}}]
PEERS = [{"ports": [{"protocol": "TCP", "port": 4317}]}]
SPREAD = [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}]

NOTIFIED = [{"name": "bus", "url": "https://bus.example/in", "secretName": "bus-key", "reasons": ["Completed"]}]

Look = Callable[[Rendered], Any]
"""What to look at in the rendered chart."""


def env(name: str) -> Look:
    return lambda rendered: rendered.environment[f"TRIMTAB_{name}"]


def env_json(name: str) -> Look:
    return lambda rendered: json.loads(rendered.environment[f"TRIMTAB_{name}"])


def count(kind: str, name: str | None = None) -> Look:
    return lambda rendered: sum(name in (None, body["metadata"]["name"]) for body in rendered.all(kind))


def pod(field: str) -> Look:
    return lambda rendered: rendered.pod["spec"].get(field)


def egress_ports(which: int) -> Look:
    def look(rendered: Rendered) -> list[int]:
        rule = rendered.one("NetworkPolicy", "trimtab")["spec"]["egress"][which]
        return [port["port"] for port in rule["ports"]]

    return look


def notified(field: str) -> Look:
    return lambda r: r.one("NetworkPolicy", "trimtab-notifications")["spec"]["egress"][0].get(field)


def policy(rendered: Rendered) -> Body:
    spec: Body = rendered.one("NetworkPolicy", "trimtab")["spec"]
    return spec


def work_pods(field: str) -> Look:
    return lambda rendered: env_json("WORK_PODS")(rendered).get(field)


def probe(which: str) -> Look:
    return lambda rendered: {key: value for key, value in rendered.container[which].items() if key != "httpGet"}


def job_pod(rendered: Rendered) -> Body:
    metadata: Body = rendered.one("Job")["spec"]["template"]["metadata"]
    return metadata


def cluster_role(rendered: Rendered) -> Body:
    return rendered.one("ClusterRole", "trimtab:trimtab-system")


def key_secret(rendered: Rendered) -> str:
    volumes = {volume["name"]: volume for volume in rendered.pod["spec"]["volumes"]}
    name: str = volumes["agent-keys"]["secret"]["secretName"]
    return name


def rules(rendered: Rendered) -> dict[str, Body]:
    """Return the alerts by name; of two with one name the first."""
    groups = rendered.one("PrometheusRule")["spec"]["groups"]
    return {rule["alert"]: rule for group in reversed(groups) for rule in reversed(group["rules"])}


def lasts(alert: str) -> Look:
    return lambda rendered: rules(rendered)[alert]["for"]


def expression_has(alert: str, text: str) -> Look:
    return lambda rendered: any(
        text in rule["expr"]
        for group in rendered.one("PrometheusRule")["spec"]["groups"]
        for rule in group["rules"]
        if rule["alert"] == alert
    )


def dashboards(rendered: Rendered) -> list[Body]:
    return [body["metadata"] for body in rendered.all("ConfigMap")]


CONSOLE_NAME = "trimtab-console"


def console_pod(rendered: Rendered) -> Body:
    template: Body = rendered.one("Deployment", CONSOLE_NAME)["spec"]["template"]
    return template


def console(rendered: Rendered) -> Body:
    container: Body = console_pod(rendered)["spec"]["containers"][0]
    return container


def console_policy(rendered: Rendered) -> Body:
    spec: Body = rendered.one("NetworkPolicy", CONSOLE_NAME)["spec"]
    return spec


RULES: Body = {"metrics": {"prometheusRule": {"enabled": True}}}
DASHBOARDS: Body = {"metrics": {"dashboards": {"enabled": True}}}
SERVICE: Body = {"metrics": {"service": {"enabled": True}}}
CONSOLE: Body = {"console": {"enabled": True, "hosts": ["trimtab.example.com"]}}
ISSUER: Body = {"console": {**CONSOLE["console"], "oidc": {"issuer": "https://login.example.com", "clientId": "a"}}}
GIVEN: Body = {"console": {**CONSOLE["console"], "preferences": {"uri": "s3://feedback/rows", "secretName": "giver"}}}
FORM_KEY: Body = {"console": {**CONSOLE["console"], "formKeySecretName": "forms"}}
KEYS: Body = {"console": {**CONSOLE["console"], "storage": {"secretName": "reader"}}}
SERVICE_MONITOR: Body = {"metrics": {"serviceMonitor": {"enabled": True}}}
MONITORS: Body = {"metrics": {"podMonitor": {"enabled": True}}}
THRESHOLD = "metrics.prometheusRule.thresholds"

CASES: dict[str, tuple[Any, Look, Any]] = {
    "replicas": (2, lambda r: r.one("Deployment")["spec"]["replicas"], 2),
    "imageRegistry": ("r.example:5000/a", lambda r: r.container["image"], "r.example:5000/a/trimtab/operator:0.1.0"),
    "operator.image": (f"r.example/b@{DIGEST}", lambda r: r.container["image"], f"r.example/b@{DIGEST}"),
    "operator.imagePullPolicy": ("Never", lambda r: r.container["imagePullPolicy"], "Never"),
    "imagePullSecrets": ([{"name": "registry"}], pod("imagePullSecrets"), [{"name": "registry"}]),
    "watchNamespaces": (["a", "b"], env("WATCH_NAMESPACES"), "a,b"),
    "prepare.image": ("r.example/b:1", env("PREPARE_IMAGE"), "r.example/b:1"),
    "prepare.resources": (
        {"limits": {"memory": "1Gi", "cpu": 1}},
        lambda r: env_json("PREPARE_RESOURCES")(r)["limits"],
        {"memory": "1Gi", "cpu": 1},
    ),
    "trainer.image": ({"repository": "b", "tag": "1"}, env("TRAINER_IMAGE"), "registry.example/b:1"),
    "evaluator.image": ({"tag": "1"}, env("EVALUATOR_IMAGE"), "registry.example/trimtab/evaluator:1"),
    "trainer.resources": (
        {"limits": {"nvidia.com/gpu": 1}},
        lambda r: env_json("TRAIN_RESOURCES")(r)["limits"].get("nvidia.com/gpu"),
        1,
    ),
    "work.imagePullPolicy": ("Always", env("IMAGE_PULL_POLICY"), "Always"),
    "work.imagePullSecrets": ([{"name": "a"}], work_pods("imagePullSecrets"), [{"name": "a"}]),
    "work.tolerations": ([{"operator": "Exists"}], work_pods("tolerations"), [{"operator": "Exists"}]),
    "work.nodeSelector": ({"zone": "a"}, work_pods("nodeSelector"), {"zone": "a"}),
    "work.podLabels": ({"team": "a"}, work_pods("labels"), {"team": "a"}),
    "work.podAnnotations": ({"team": "a"}, work_pods("annotations"), {"team": "a"}),
    "work.priorityClassName": ("low", work_pods("priorityClassName"), "low"),
    "work.podSecurityContext": (
        {"runAsUser": None, "runAsGroup": 7},
        work_pods("securityContext"),
        {"runAsGroup": 7, "fsGroup": 65532},
    ),
    "work.scratchSize": ("1Gi", env("SCRATCH_SIZE"), "1Gi"),
    "work.acceleratorResources": (
        ["nvidia.com/gpu", "example.com/npu-*"],
        env("ACCELERATOR_RESOURCES"),
        "nvidia.com/gpu,example.com/npu-*",
    ),
    "work.shmSize": ("2Gi", env("SHM_SIZE"), "2Gi"),
    "settings.logLevel": ("DEBUG", env("LOG_LEVEL"), "DEBUG"),
    "settings.workers": (2, env("WORKERS"), "2"),
    "settings.progressSeconds": (2, env("PROGRESS_SECONDS"), "2"),
    "settings.nodeLossSeconds": (30, env("NODE_LOSS_SECONDS"), "30"),
    "settings.podStartSeconds": (1.5, env("POD_START_SECONDS"), "1.5"),
    "settings.nameTakenSeconds": (5, env("NAME_TAKEN_SECONDS"), "5"),
    "settings.retrySeconds": (1, env("RETRY_SECONDS"), "1"),
    "settings.deleteWhatGitopsTracks": (True, env("DELETE_WHAT_GITOPS_TRACKS"), "true"),
    "settings.gitopsLabels": (["a.example/app", "b.example/app"], env("GITOPS_LABELS"), "a.example/app,b.example/app"),
    "settings.auditSeconds": (60, env("AUDIT_SECONDS"), "60"),
    "settings.requestSeconds": (30, env("REQUEST_SECONDS"), "30"),
    "settings.leaseSeconds": (15, env("LEASE_SECONDS"), "15"),
    "admissionPolicies.enabled": (False, env("ADMISSION_POLICIES"), ""),
    "crds.enabled": (False, count("CustomResourceDefinition"), 0),
    "crds.keep": (
        False,
        lambda r: [body for body in r.all("CustomResourceDefinition") if "annotations" in body["metadata"]],
        [],
    ),
    "serviceAccount.create": (False, count("ServiceAccount", "trimtab"), 0),
    "serviceAccount.name": ("mine", pod("serviceAccountName"), "mine"),
    "serviceAccount.annotations": (
        {"role": "a"},
        lambda r: r.one("ServiceAccount", "trimtab")["metadata"].get("annotations"),
        {"role": "a"},
    ),
    "rbac.create": (False, count("RoleBinding"), 0),
    "rbac.aggregate": (False, count("ClusterRole"), 1),
    "rbac.nodes": (
        False,
        lambda r: [rule for rule in cluster_role(r)["rules"] if "nodes" in rule["resources"]],
        [],
    ),
    "notifications": (NOTIFIED, env_json("NOTIFICATIONS"), NOTIFIED),
    "agentKey.existingSecret": ("mine", lambda r: (key_secret(r), len(r.hooks)), ("mine", 0)),
    "agentKey.resources": (
        {"limits": {"memory": "1Gi"}},
        lambda r: r.one("Job")["spec"]["template"]["spec"]["containers"][0]["resources"]["limits"],
        {"memory": "1Gi"},
    ),
    "agentKey.podLabels": (
        {"sidecar.istio.io/inject": None, "team": "a"},
        lambda r: "sidecar.istio.io/inject" in job_pod(r)["labels"] or job_pod(r)["labels"].get("team"),
        "a",
    ),
    "agentKey.podAnnotations": (
        {"sidecar.istio.io/inject": None, "consul.hashicorp.com/connect-inject": None, "team": "a"},
        lambda r: job_pod(r)["annotations"],
        {"linkerd.io/inject": "disabled", "team": "a"},
    ),
    "health.port": (8081, env("HEALTH_PORT"), "8081"),
    "metrics.port": (8080, env("METRICS_PORT"), "8080"),
    "metrics.annotations": (
        True,
        lambda r: r.pod["metadata"].get("annotations"),
        {"prometheus.io/scrape": "true", "prometheus.io/port": "9402", "prometheus.io/path": "/metrics"},
    ),
    "metrics.perObject": (True, env("OBJECT_METRICS"), "true"),
    "metrics.service.enabled": (True, count("Service"), 1),
    "metrics.serviceMonitor.enabled": (True, lambda r: (count("Service")(r), count("ServiceMonitor")(r)), (1, 1)),
    "metrics.podMonitor.enabled": (True, count("PodMonitor", "trimtab"), 1),
    "metrics.prometheusRule.enabled": (True, count("PrometheusRule"), 1),
    "metrics.dashboards.enabled": (True, count("ConfigMap"), 3),
    "networkPolicy.enabled": (False, count("NetworkPolicy"), 0),
    "networkPolicy.apiServerPorts": ([16443], egress_ports(1), [16443]),
    "networkPolicy.agentPorts": ([8081, 9081], egress_ports(3), [8081, 9081]),
    "networkPolicy.metricsFrom": (
        SELECTOR,
        lambda r: r.one("NetworkPolicy", "trimtab")["spec"]["ingress"][0].get("from"),
        SELECTOR,
    ),
    "networkPolicy.extraIngress": (PEERS, lambda r: policy(r)["ingress"][-1:], PEERS),
    "networkPolicy.extraEgress": (PEERS, lambda r: policy(r)["egress"][-1:], PEERS),
    "podSecurityContext": (
        {"runAsUser": None, "runAsGroup": None, "fsGroup": None},
        lambda r: [
            body["spec"]["template"]["spec"]["securityContext"] for body in (*r.all("Deployment"), *r.all("Job"))
        ],
        [{"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}] * 2,
    ),
    "containerSecurityContext": (
        {"readOnlyRootFilesystem": None, "runAsUser": 5},
        lambda r: r.container["securityContext"],
        {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}, "runAsUser": 5},
    ),
    "extraEnv": ([{"name": "A", "value": "b"}], lambda r: r.container["env"][-1], {"name": "A", "value": "b"}),
    "extraArgs": (["--log-level=DEBUG"], lambda r: r.container.get("args"), ["--log-level=DEBUG"]),
    "extraVolumes": (
        [{"name": "a", "emptyDir": {}}],
        lambda r: r.pod["spec"]["volumes"][-1],
        {"name": "a", "emptyDir": {}},
    ),
    "extraVolumeMounts": (
        [{"name": "a", "mountPath": "/a"}],
        lambda r: r.container["volumeMounts"][-1],
        {"name": "a", "mountPath": "/a"},
    ),
    "startupProbe": ({"failureThreshold": 90}, probe("startupProbe"), {"periodSeconds": 2, "failureThreshold": 90}),
    "livenessProbe": (
        {"timeoutSeconds": 9},
        probe("livenessProbe"),
        {"periodSeconds": 10, "timeoutSeconds": 9, "failureThreshold": 3},
    ),
    "readinessProbe": ({"periodSeconds": 3}, probe("readinessProbe"), {"periodSeconds": 3, "timeoutSeconds": 5}),
    "dnsPolicy": ("None", pod("dnsPolicy"), "None"),
    "dnsConfig": ({"nameservers": ["10.0.0.1"]}, pod("dnsConfig"), {"nameservers": ["10.0.0.1"]}),
    "runtimeClassName": ("gvisor", pod("runtimeClassName"), "gvisor"),
    "resources": ({"limits": {"memory": "1Gi"}}, lambda r: r.container["resources"]["limits"], {"memory": "1Gi"}),
    "podLabels": ({"team": "a"}, lambda r: r.pod["metadata"]["labels"].get("team"), "a"),
    "podAnnotations": ({"team": "a"}, lambda r: r.pod["metadata"].get("annotations"), {"team": "a"}),
    "nodeSelector": ({"zone": "a"}, pod("nodeSelector"), {"zone": "a"}),
    "tolerations": ([{"operator": "Exists"}], pod("tolerations"), [{"operator": "Exists"}]),
    "affinity": ({"podAffinity": {}}, pod("affinity"), {"podAffinity": {}}),
    "topologySpreadConstraints": (SPREAD, pod("topologySpreadConstraints"), SPREAD),
    "priorityClassName": ("high", pod("priorityClassName"), "high"),
    "terminationGracePeriodSeconds": (5, pod("terminationGracePeriodSeconds"), 5),
    "commonLabels": ({"team": "a"}, lambda r: {body["metadata"]["labels"].get("team") for body in r.objects}, {"a"}),
    "nameOverride": ("other", lambda r: r.one("Deployment")["metadata"]["name"], "trimtab-other"),
    "fullnameOverride": ("other", lambda r: r.one("Deployment")["metadata"]["name"], "other"),
}

TOGETHER: dict[str, tuple[Body, Look, Any, Any]] = {
    "networkPolicy.notificationPorts": (
        {"notifications": NOTIFIED},
        notified("ports"),
        [8443],
        [{"protocol": "TCP", "port": 8443}],
    ),
    "networkPolicy.notificationsTo": ({"notifications": NOTIFIED}, notified("to"), SELECTOR, SELECTOR),
    "podDisruptionBudget.enabled": (
        {"replicas": 2},
        count("PodDisruptionBudget"),
        False,
        0,
    ),
    "metrics.service.labels": (
        SERVICE,
        lambda r: r.one("Service")["metadata"]["labels"].get("team"),
        {"team": "a"},
        "a",
    ),
    "metrics.service.annotations": (
        SERVICE,
        lambda r: r.one("Service")["metadata"].get("annotations"),
        {"team": "a"},
        {"team": "a"},
    ),
    "metrics.serviceMonitor.interval": (
        SERVICE_MONITOR,
        lambda r: r.one("ServiceMonitor")["spec"]["endpoints"][0]["interval"],
        "5s",
        "5s",
    ),
    "metrics.serviceMonitor.labels": (
        SERVICE_MONITOR,
        lambda r: r.one("ServiceMonitor")["metadata"]["labels"].get("release"),
        {"release": "monitoring"},
        "monitoring",
    ),
    "metrics.podMonitor.interval": (
        MONITORS,
        lambda r: {m["spec"]["podMetricsEndpoints"][0]["interval"] for m in r.all("PodMonitor")},
        "5s",
        {"5s"},
    ),
    "metrics.podMonitor.labels": (
        MONITORS,
        lambda r: {m["metadata"]["labels"].get("release") for m in r.all("PodMonitor")},
        {"release": "monitoring"},
        {"monitoring"},
    ),
    "metrics.podMonitor.workPods": (MONITORS, count("PodMonitor", "trimtab-work"), False, 0),
    "metrics.podMonitor.servingPods": (MONITORS, count("PodMonitor", "trimtab-agents"), False, 0),
    "metrics.prometheusRule.labels": (
        RULES,
        lambda r: r.one("PrometheusRule")["metadata"]["labels"].get("release"),
        {"release": "monitoring"},
        "monitoring",
    ),
    "metrics.prometheusRule.runbooks": (
        RULES,
        lambda r: {rule["annotations"]["runbook_url"].rpartition("/")[0] for rule in rules(r).values()},
        "https://wiki.example/trimtab/",
        {"https://wiki.example/trimtab"},
    ),
    f"{THRESHOLD}.rolloutStuckFor": (RULES, lasts("TrimtabRolloutStuck"), "2h", "2h"),
    f"{THRESHOLD}.approvalWaitFor": (RULES, lasts("TrimtabApprovalWaiting"), "2h", "2h"),
    f"{THRESHOLD}.adapterNotReadyFor": (RULES, lasts("TrimtabAdapterNotReady"), "2h", "2h"),
    f"{THRESHOLD}.gateFailures": (RULES, expression_has("TrimtabGateFailing", ">= 7 #"), 7, True),
    f"{THRESHOLD}.sweepStuckFor": (RULES, lasts("TrimtabSweepStuck"), "2h", "2h"),
    f"{THRESHOLD}.failedTrials": (RULES, expression_has("TrimtabSweepTrialsFailing", ">= 7 #"), 7, True),
    f"{THRESHOLD}.queueWaitFor": (RULES, lasts("TrimtabJobsQueued"), "2h", "2h"),
    f"{THRESHOLD}.trainingStalledSeconds": (RULES, expression_has("TrimtabTrainingStalled", "> 60 #"), 60, True),
    f"{THRESHOLD}.failedAttemptsPerHour": (RULES, expression_has("TrimtabRetriesBurning", ">= 9 #"), 9, True),
    f"{THRESHOLD}.lostAcceleratorSeconds": (
        RULES,
        expression_has("TrimtabRetriesBurning", "> 5000000 #"),
        5_000_000,
        True,
    ),
    f"{THRESHOLD}.notificationWaitingSeconds": (
        RULES,
        expression_has("TrimtabNotificationsNotDelivered", "> 60 #"),
        60,
        True,
    ),
    f"{THRESHOLD}.notLeadingFor": (RULES, lasts("TrimtabOperatorNotLeading"), "2h", "2h"),
    "metrics.dashboards.labels": (
        DASHBOARDS,
        lambda r: {body["labels"].get("mine") for body in dashboards(r)},
        {"mine": "yes"},
        {"yes"},
    ),
    "metrics.dashboards.annotations": (
        DASHBOARDS,
        lambda r: [body.get("annotations") for body in dashboards(r)],
        {"grafana_folder": "Trimtab"},
        [{"grafana_folder": "Trimtab"}] * 3,
    ),
    "console.enabled": ({"console": {"hosts": ["a"]}}, count("Deployment", CONSOLE_NAME), True, 1),
    "console.hosts": (
        CONSOLE,
        lambda r: [each for each in console(r)["args"] if each.startswith("--host")],
        ["a.example:8443", "b"],
        ["--host=a.example:8443", "--host=b"],
    ),
    "console.image": (CONSOLE, lambda r: console(r)["image"], "r.example/b:1", "r.example/b:1"),
    "console.imagePullPolicy": (CONSOLE, lambda r: console(r)["imagePullPolicy"], "Never", "Never"),
    "console.namespace": (CONSOLE, lambda r: "--namespace=ml" in console(r)["args"], "ml", True),
    "console.port": (CONSOLE, lambda r: console(r)["ports"][0]["containerPort"], 9000, 9000),
    "console.oidc.issuer": (
        {"console": {**CONSOLE["console"], "oidc": {"clientId": "a"}}},
        lambda r: [each for each in console(r)["args"] if "issuer" in each],
        "https://login.example.com/realm",
        ["--oidc-issuer=https://login.example.com/realm"],
    ),
    "console.oidc.clientId": (ISSUER, lambda r: "--oidc-client-id=b" in console(r)["args"], "b", True),
    "console.oidc.secretName": (
        ISSUER,
        lambda r: console(r).get("env"),
        "client",
        [
            {
                "name": "TRIMTAB_CONSOLE_OIDC_CLIENT_SECRET",
                "valueFrom": {"secretKeyRef": {"name": "client", "key": "client-secret"}},
            }
        ],
    ),
    "console.oidc.scopes": (
        ISSUER,
        lambda r: [each for each in console(r)["args"] if "scope" in each],
        ["openid", "groups"],
        ["--oidc-scope=openid", "--oidc-scope=groups"],
    ),
    "console.oidc.certificateAuthorityName": (
        ISSUER,
        lambda r: [
            each["configMap"]["name"] for each in console_pod(r)["spec"]["volumes"] if each["name"] == "provider"
        ],
        "authority",
        ["authority"],
    ),
    "console.storage.secretName": (
        CONSOLE,
        lambda r: console(r).get("envFrom"),
        "reader",
        [{"prefix": "TRIMTAB_CONSOLE_STORAGE_", "secretRef": {"name": "reader"}}],
    ),
    "console.storage.ports": (
        KEYS,
        lambda r: console_policy(r)["egress"][2:],
        [443, 8333],
        [{"ports": [{"protocol": "TCP", "port": 443}, {"protocol": "TCP", "port": 8333}]}],
    ),
    "console.replicas": (FORM_KEY, lambda r: r.one("Deployment", CONSOLE_NAME)["spec"]["replicas"], 2, 2),
    "console.formKeySecretName": (
        CONSOLE,
        lambda r: [each["valueFrom"]["secretKeyRef"] for each in console(r).get("env", ())],
        "forms",
        [{"name": "forms", "key": "form-key"}],
    ),
    "console.preferences.uri": (
        GIVEN,
        lambda r: console(r)["env"],
        "s3://feedback/other",
        [{"name": "TRIMTAB_CONSOLE_PREFERENCES_URI", "value": "s3://feedback/other"}],
    ),
    "console.preferences.secretName": (
        GIVEN,
        lambda r: console(r)["envFrom"],
        "other",
        [{"prefix": "TRIMTAB_CONSOLE_PREFERENCES_", "secretRef": {"name": "other"}}],
    ),
    "console.preferences.ports": (
        GIVEN,
        lambda r: console_policy(r)["egress"][2:],
        [8333],
        [{"ports": [{"protocol": "TCP", "port": 8333}]}],
    ),
    "console.targetPort": (
        CONSOLE,
        lambda r: r.one("Service", CONSOLE_NAME)["spec"]["ports"][0]["targetPort"],
        4180,
        4180,
    ),
    "console.proxyFrom": (CONSOLE, lambda r: console_policy(r)["ingress"][0].get("from"), SELECTOR, SELECTOR),
    "console.extraEgress": (CONSOLE, lambda r: console_policy(r)["egress"][2:], PEERS, PEERS),
    "console.extraContainers": (
        CONSOLE,
        lambda r: console_pod(r)["spec"]["containers"][1:],
        [{"name": "proxy"}],
        [{"name": "proxy"}],
    ),
    "console.extraVolumes": (
        CONSOLE,
        lambda r: console_pod(r)["spec"]["volumes"][2:],
        [{"name": "a"}],
        [{"name": "a"}],
    ),
    "console.resources": (
        CONSOLE,
        lambda r: console(r)["resources"]["limits"],
        {"limits": {"memory": "1Gi"}},
        {"memory": "1Gi"},
    ),
    "console.podLabels": (CONSOLE, lambda r: console_pod(r)["metadata"]["labels"].get("team"), {"team": "a"}, "a"),
    "console.podAnnotations": (
        CONSOLE,
        lambda r: console_pod(r)["metadata"].get("annotations"),
        {"mesh": "off"},
        {"mesh": "off"},
    ),
}
"""Values that do something only with another one: that one, what to look at, the value, and what is seen."""


def merge(one: Body, other: Body) -> Body:
    both = {**one, **other}
    for key in one.keys() & other.keys():
        if isinstance(one[key], dict):
            both[key] = merge(one[key], other[key])
    return both


def test_every_documented_value_has_a_case() -> None:
    assert CASES.keys() | TOGETHER.keys() == set(keys(documented()))


@pytest.mark.parametrize("key", CASES)
def test_value(key: str) -> None:
    value, look, expected = CASES[key]
    assert look(Rendered()) != expected, "the default: set something else in the case"
    assert look(Rendered(nested(key, value))) == expected


@pytest.mark.parametrize("key", TOGETHER)
def test_value_with_another(key: str) -> None:
    given, look, value, expected = TOGETHER[key]
    assert look(Rendered(given)) != expected
    assert look(Rendered(merge(given, nested(key, value)))) == expected


def test_the_schema_has_the_documented_values_and_no_others() -> None:
    schema = json.loads((DIRECTORY / "values.schema.json").read_text())
    definitions = schema["definitions"]

    def known(node: Body, path: str) -> list[str]:
        node = definitions[node["$ref"].rpartition("/")[2]] if "$ref" in node else node
        if "properties" not in node or path.lower().endswith(WHOLE):
            return [path]
        assert node["additionalProperties"] is False, path
        return [key for name, child in node["properties"].items() for key in known(child, f"{path}.{name}".lstrip("."))]

    assert set(known(schema, "")) - {"global"} == set(keys(documented()))


@pytest.mark.parametrize(
    "key", ["unheard", "operator.unheard", "trainer.unheard", "settings.unheard", "metrics.podMonitor.unheard"]
)
def test_an_unknown_value_is_refused(key: str) -> None:
    with pytest.raises(HelmError, match="unheard"):
        Rendered(nested(key, "a"))


WRONG: dict[str, Any] = {
    "notifications": [{"name": "bus", "url": "ftp://bus.example"}],
    "replicas": 0,
    "operator.image": "a b",
    "prepare.image": {"repository": "a/b:1"},
    "trainer.image": {"digest": "sha256:1"},
    "evaluator.image": "a b",
    "imageRegistry": "https://registry.example",
    "work.podSecurityContext": {"runAsUser": 0},
    "work.podLabels": {"a": "not a label's value"},
    "work.podAnnotations": {"not a key": "a"},
    "work.nodeSelector": {"zone": "not a label's value"},
    "work.tolerations": [{"key": "a", "operator": "Sometimes"}],
    "work.imagePullSecrets": [{"name": ""}],
    "work.priorityClassName": "Not a name",
    "podSecurityContext": {"hostUsers": False},
    "extraEnv": [{"name": "TRIMTAB_WORKERS", "value": "1"}],
    "extraVolumes": [{"name": "tmp", "emptyDir": {}}],
    "livenessProbe": {"httpGet": {"path": "/"}},
    "commonLabels": {"app.kubernetes.io/name": "mine"},
    "operator.imagePullPolicy": "Sometimes",
    "watchNamespaces": ["Not a name"],
    "work.scratchSize": "much",
    "work.acceleratorResources": ["gpu"],
    "prepare.resources": {"limits": {"memory": "much"}},
    "settings.logLevel": "LOUD",
    "settings.workers": 0,
    "settings.nodeLossSeconds": 0,
    "settings.leaseSeconds": 1,
    "metrics.port": 80,
    "metrics.prometheusRule.thresholds.rolloutStuckFor": "soon",
    "metrics.prometheusRule.thresholds.gateFailures": 0,
    "metrics.prometheusRule.thresholds.failedTrials": 0,
    "metrics.prometheusRule.thresholds.unheard": 1,
    "networkPolicy.apiServerPorts": [],
    "networkPolicy.agentPorts": [],
    "agentKey.existingSecret": "Not a name",
    "podLabels": {"a": 1},
    "console.hosts": ["https://trimtab.example.com"],
    "console.targetPort": 80,
    "console.oidc.issuer": "http://login.example.com",
    "console.oidc.scopes": ["profile"],
    "console.oidc.secretName": "Not a name",
    "console.storage.ports": [],
    "console.preferences.uri": "file:///rows",
    "console.preferences.ports": [],
    "console.replicas": 6,
    "console.formKeySecretName": "Not a name",
    "console.unheard": 1,
}


IMAGES: dict[str, tuple[Any, str]] = {
    "the chart's version where nothing is said": ({}, "registry.example/trimtab/operator:0.1.0"),
    "a registry of its own": (
        {"registry": "other.example:5000/mirror/"},
        "other.example:5000/mirror/trimtab/operator:0.1.0",
    ),
    "a repository and a tag": ({"repository": "ml/op", "tag": "1.2"}, "registry.example/ml/op:1.2"),
    "a digest and no tag": ({"digest": DIGEST}, f"registry.example/trimtab/operator@{DIGEST}"),
    "both": ({"tag": "1", "digest": DIGEST}, f"registry.example/trimtab/operator:1@{DIGEST}"),
    "one string": ("localhost/operator:1", "localhost/operator:1"),
}


@pytest.mark.parametrize("case", IMAGES)
def test_an_image_is_made_of_its_parts(case: str) -> None:
    image, expected = IMAGES[case]
    rendered = Rendered({"operator": {"image": image}})
    assert rendered.container["image"] == expected
    assert rendered.one("Job")["spec"]["template"]["spec"]["containers"][0]["image"] == expected


@pytest.mark.parametrize("name", ["operator", "prepare", "trainer"])
@pytest.mark.parametrize("image", ["operator:1", "trimtab/operator:1", {"repository": "trimtab/operator", "tag": "1"}])
def test_a_name_that_a_node_would_complete_is_refused(name: str, image: Any) -> None:
    images = {each: {"image": "registry.example/a:1"} for each in ("operator", "prepare", "trainer")}
    with pytest.raises(HelmError, match=rf"{name}\.image.*names no registry"):
        Rendered({"imageRegistry": "", **images, name: {"image": image}})


@pytest.mark.parametrize(
    "image", ["registry.example/operator", "registry.example:5000/operator", "r.example/o@sha256:1"]
)
def test_an_image_without_a_version_is_refused(image: str) -> None:
    with pytest.raises(HelmError, match="neither a tag nor a digest"):
        Rendered({"operator": {"image": image}})


def test_without_an_image_with_an_engine_the_operator_is_told_of_none() -> None:
    assert Rendered().environment["TRIMTAB_EVALUATOR_IMAGE"] == ""
    assert Rendered({"evaluator": {"image": "r.example/e:1"}}).environment["TRIMTAB_EVALUATOR_IMAGE"] == "r.example/e:1"
    with pytest.raises(HelmError, match=r"evaluator\.image.*names no registry"):
        Rendered({"evaluator": {"image": "evaluator:1"}})


def test_the_values_of_an_older_chart_alone_are_refused() -> None:
    """`helm upgrade --reuse-values` brings none that came since: no security context, for example."""
    with pytest.raises(HelmError, match="--reset-then-reuse-values"):
        Rendered({"imageRegistry": None, "operator": {"image": "r.example/a:1"}})


def test_without_any_registry_the_error_says_what_to_set() -> None:
    with pytest.raises(HelmError, match="set imageRegistry"):
        Rendered({"imageRegistry": ""})


@pytest.mark.parametrize("key", WRONG)
def test_a_value_that_cannot_work_is_refused(key: str) -> None:
    with pytest.raises(HelmError):
        Rendered(nested(key, WRONG[key]))


@pytest.mark.parametrize("ports", ["apiServerPorts", "agentPorts", "notificationPorts"])
def test_a_rule_without_ports_which_would_mean_all_of_them_is_refused(ports: str) -> None:
    with pytest.raises(HelmError, match=ports):
        Rendered({"networkPolicy": {ports: None}})


NUMBERS: dict[str, tuple[Body, str, str]] = {
    "a namespace": ({"watchNamespaces": ["1234", "true"]}, "trimtab", "1e3"),
    "a release": ({}, "1234", "trimtab-system"),
    "names": ({"nameOverride": "1234", "fullnameOverride": "5678"}, "trimtab", "trimtab-system"),
    "what else there is": (
        {
            "priorityClassName": "1000",
            "runtimeClassName": "1000",
            "serviceAccount": {"name": "1000"},
            "agentKey": {"existingSecret": "1000"},
        },
        "trimtab",
        "trimtab-system",
    ),
}
NAMES = ("name", "namespace", "instance", "ClassName", "serviceAccountName", "secretName", "value")


def numbers(value: Any, path: str = "") -> list[str]:
    """Return where there is no text and a name should be."""
    if isinstance(value, dict):
        return [each for key, inside in value.items() for each in numbers(inside, f"{path}.{key}")]
    if isinstance(value, list):
        return [each for inside in value for each in numbers(inside, path)]
    return [path] if not isinstance(value, str) and path.endswith((*NAMES, ".resourceNames")) else []


@pytest.mark.parametrize("case", NUMBERS)
def test_a_name_that_yaml_would_take_for_a_number_stays_a_name(case: str) -> None:
    values, name, namespace = NUMBERS[case]
    monitored = {
        "service": {"enabled": True},
        "podMonitor": {"enabled": True},
        "prometheusRule": {"enabled": True},
        "dashboards": {"enabled": True},
    }
    rendered = Rendered({**values, "replicas": 2, "metrics": monitored}, name=name, namespace=namespace)
    assert rendered.objects
    assert [found for body in rendered.objects for found in numbers(body)] == []


@pytest.mark.parametrize("key", ["startupProbe", "livenessProbe", "readinessProbe", "resources", "agentKey.resources"])
def test_a_section_that_is_taken_out_leaves_none_of_its_defaults(key: str) -> None:
    """null is how Helm's users take a default out."""
    rendered = Rendered(nested(key, None))
    job = rendered.one("Job")["spec"]["template"]["spec"]["containers"][0]
    found = job["resources"] if key == "agentKey.resources" else rendered.container[key]
    assert {name: value for name, value in found.items() if name != "httpGet"} == {}


@pytest.mark.parametrize("stage", ["prepare", "trainer"])
def test_work_pods_without_default_resources_have_none(stage: str) -> None:
    rendered = Rendered({stage: {"resources": None}})
    assert rendered.environment[f"TRIMTAB_{stage.removesuffix('er').upper()}_RESOURCES"] == "{}"


def test_helm_lint_has_nothing_to_say() -> None:
    found = lint(DIRECTORY)
    assert not found["errors"]
    assert [message["error"] for message in found["messages"]] == ["icon is recommended"]


def test_every_value_is_explained() -> None:
    """A comment stands at the value, or at the section it is in."""
    explained = False
    for number, line in enumerate((DIRECTORY / "values.yaml").read_text().splitlines(), 1):
        if not line:
            explained = False
        elif line.lstrip().startswith("#"):
            explained = True
        elif not line.startswith(" ") and line.endswith(":"):
            explained = True  # a section; its values explain themselves or are explained one by one
        assert explained or not line, f"line {number} of values.yaml: {line}"
