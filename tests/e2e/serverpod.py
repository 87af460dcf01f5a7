"""A server of the trainer's tests as a pod of a tenant: code from a ConfigMap, and a Service of the same name."""

from __future__ import annotations

from typing import Any

from deploy.demo.api import Body
from tests.e2e.tenants import SMALL, Tenant


def server(tenant: Tenant, name: str, port: int, code: dict[str, str], *, memory: str, keys: str = "") -> list[Body]:
    """Return what runs `serve.py` of some code.

    Args:
        memory: limit of its memory.
        keys: name of a Secret that stands in /keys.
    """
    metadata = {"namespace": tenant.namespace, "name": name}
    mounts: list[Body] = [{"name": "code", "mountPath": "/code"}]
    volumes: list[Body] = [{"name": "code", "configMap": {"name": name}}]
    user: dict[str, Any] = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    if keys:
        mounts.append({"name": "keys", "mountPath": "/keys"})
        volumes.append({"name": "keys", "secret": {"secretName": keys, "defaultMode": 0o440}})
        user["fsGroup"] = 65532
    container = {
        "name": name,
        "image": tenant.installation.images["operator"],
        "command": ["python", "/code/serve.py"],
        "env": [{"name": "PYTHONUNBUFFERED", "value": "1"}, {"name": "PYTHONDONTWRITEBYTECODE", "value": "1"}],
        "resources": {"requests": SMALL, "limits": {"memory": memory}},
        "readinessProbe": {"tcpSocket": {"port": port}, "periodSeconds": 1},
        "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        "volumeMounts": mounts,
    }
    spec = {
        "automountServiceAccountToken": False,
        "terminationGracePeriodSeconds": 0,
        "securityContext": user,
        "containers": [container],
        "volumes": volumes,
    }
    service = {"selector": {"app": name}, "ports": [{"port": port}]}
    return [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": code},
        {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": service},
        {"apiVersion": "v1", "kind": "Pod", "metadata": {**metadata, "labels": {"app": name}}, "spec": spec},
    ]


def wait_ready(tenant: Tenant, name: str) -> None:
    """Wait until a server takes connections."""

    def ready() -> bool:
        conditions = (tenant.mirror.get("Pod", name) or {}).get("status", {}).get("conditions", [])
        return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)

    tenant.mirror.wait(f"the {name}", ready)
