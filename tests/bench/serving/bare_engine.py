"""The Deployment of deploy/serving with everything of Trimtab taken out, and nothing else changed."""

from __future__ import annotations

import copy
from typing import Any

Body = dict[str, Any]

AGENT, ENGINE = "trimtab-agent", "vllm"
VOLUMES = "trimtab-"
"""What the names of the agent's volumes begin with."""
PROBES = ("startupProbe", "readinessProbe", "livenessProbe")


def without_trimtab(deployment: Body, name: str) -> Body:
    """Return a Deployment of another name without agent and guard; its pods are nobody's but its own.

    `deployment` may be what the API server answers: what it has added to the metadata is left out. The engine answers
    the probes itself, as often as the guard did; its environment still allows adapters to be loaded while it runs.
    """
    spec = copy.deepcopy(deployment["spec"])
    labels = {"app": name}
    spec["selector"] = {"matchLabels": labels}
    spec["template"]["metadata"] = {"labels": labels}
    pod = spec["template"]["spec"]
    pod["volumes"] = [volume for volume in pod["volumes"] if not volume["name"].startswith(VOLUMES)]
    pod["initContainers"] = [container for container in pod["initContainers"] if container["name"] != AGENT]
    (engine,) = (container for container in pod["containers"] if container["name"] == ENGINE)
    engine["args"] = [argument for argument in engine["args"] if not argument.startswith("--middleware=")]
    engine["env"] = [variable for variable in engine["env"] if variable["name"] != "PYTHONPATH"]
    engine["volumeMounts"] = [mount for mount in engine["volumeMounts"] if not mount["name"].startswith(VOLUMES)]
    for probe in PROBES:
        engine[probe]["httpGet"]["path"] = "/health"
    return {
        "apiVersion": deployment["apiVersion"],
        "kind": deployment["kind"],
        "metadata": {"name": name, "namespace": deployment["metadata"].get("namespace", "default"), "labels": labels},
        "spec": spec,
    }
