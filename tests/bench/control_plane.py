"""A control plane for a benchmark, with Trimtab's definitions in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from trimtab_local import Cluster

from tests.component.api_server import ApiServer
from tests.component.conftest import install_crds


@contextmanager
def control_plane(instance: int) -> Iterator[tuple[Cluster, ApiServer]]:
    """Start the cluster of a number; one that was not running before is taken down again."""
    cluster = Cluster(name=instance, control_plane=True)
    was_up = cluster.mode() is not None
    cluster.up()
    try:
        server = ApiServer(cluster.kubeconfig)
        install_crds(server)
        yield cluster, server
    finally:
        if not was_up:
            cluster.down()
