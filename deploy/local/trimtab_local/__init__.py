"""A real Kubernetes control plane, or a real one-node cluster, in namespaces of this machine.

from trimtab_local import Cluster

with Cluster(name=3, control_plane=True) as cluster:
    ...  # cluster.kubeconfig
"""

from trimtab_local.cluster import Cluster
from trimtab_local.progress import Failed

__all__ = ["Cluster", "Failed"]
