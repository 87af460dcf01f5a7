"""How a cluster is reached, and as whom: a kubeconfig's context, or the service account of the pod this runs in."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from kubernetes.client.configuration import Configuration
from kubernetes.config import ConfigException, load_incluster_config
from kubernetes.config.kube_config import KubeConfigLoader, KubeConfigMerger

from .errors import Unreachable, near

OWN_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
DEFAULT_PLACE = "~/.kube/config"
UNREADABLE = (ConfigException, OSError, ValueError, TypeError, KeyError, AttributeError)
"""What the `kubernetes` package raises for a file that is no kubeconfig."""


def configuration_of(context: str | None = None, kubeconfig: str | None = None) -> tuple[Configuration, str]:
    """Return how to reach the cluster, and the namespace that is meant where none is said.

    Raises:
        Unreachable: there is no kubeconfig and this is no pod, or there is no such context, or none is current.
    """
    place = kubeconfig or os.environ.get("KUBECONFIG") or DEFAULT_PLACE
    try:
        merged = KubeConfigMerger(place).config
    except Exception as error:  # yaml.YAMLError too: whatever the file holds, it is no kubeconfig
        raise Unreachable(
            f"the kubeconfig {place} cannot be read ({error})", "look at it with kubectl config view"
        ) from error
    if merged is None:
        return _within_a_pod(place)
    names = [str(each.safe_get("name")) for each in merged.value["contexts"]]
    chosen = context or merged.value.get("current-context")
    if not chosen:
        raise Unreachable(
            f"no context of the kubeconfig is current, and there are {len(names)} ({', '.join(names)})",
            "give --context, or choose one with kubectl config use-context",
        )
    if chosen not in names:
        hint = near(str(chosen), names) or f"the contexts are {', '.join(names) or 'none'}"
        raise Unreachable(f"the kubeconfig has no context {chosen}", hint)
    configuration = Configuration()
    try:
        loader = KubeConfigLoader(config_dict=merged, active_context=chosen, config_base_path=None)
        loader.load_and_set(configuration)
        named: dict[str, Any] = loader.current_context["context"]
    except UNREADABLE as error:
        raise Unreachable(
            f"the context {chosen} cannot be used ({error})", "look at it with kubectl config view"
        ) from error
    return configuration, str(named.get("namespace") or "default")


def _within_a_pod(place: str) -> tuple[Configuration, str]:
    configuration = Configuration()
    try:
        load_incluster_config(configuration)
        return configuration, OWN_NAMESPACE.read_text().strip()
    except (ConfigException, OSError):
        raise Unreachable(
            f"no cluster is configured: there is no {place}", "set KUBECONFIG, or give --kubeconfig"
        ) from None
