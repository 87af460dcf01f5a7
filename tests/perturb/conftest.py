"""The fixtures of the component tests, shared: one control plane, a namespace a test."""

from tests.component.conftest import kubeconfig, namespace, server
from tests.component.operator.conftest import kube, start

__all__ = ["kube", "kubeconfig", "namespace", "server", "start"]
