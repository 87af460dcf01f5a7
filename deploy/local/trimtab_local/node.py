"""What the node's components read: configuration files rendered for one instance."""

import json
from pathlib import Path

from trimtab_local.instance import Instance

SCRIPT = Path(__file__).with_name("node.sh")
MANIFEST = Path(__file__).with_name("manifests") / "node.yaml"

CONTAINERD = """\
version = 3
root = "{images}"
state = "/run/containerd"
[grpc]
  address = "{socket}"
[plugins.'io.containerd.cri.v1.images']
  snapshotter = "overlayfs"
  [plugins.'io.containerd.cri.v1.images'.pinned_images]
    sandbox = "{pause}"
[plugins.'io.containerd.cri.v1.runtime']
  restrict_oom_score_adj = true  # the capability for negative scores may be missing
  [plugins.'io.containerd.cri.v1.runtime'.cni]
    bin_dirs = ["/usr/lib/cni"]
    conf_dir = "{folder}/cni"
  [plugins.'io.containerd.cri.v1.runtime'.containerd]
    default_runtime_name = "runc"
    [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
      runtime_type = "io.containerd.runc.v2"
      [plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
        SystemdCgroup = false
"""

KUBELET = """\
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
failSwapOn: false
failCgroupV1: false
cgroupDriver: cgroupfs
cgroupRoot: /{cgroup}
cpuCFSQuota: {quota}
containerRuntimeEndpoint: unix://{socket}
authentication:
  anonymous: {{enabled: false}}
  webhook: {{enabled: true}}
  x509: {{clientCAFile: {folder}/pki/ca.crt}}
authorization: {{mode: Webhook}}
tlsCertFile: {folder}/pki/kubelet-serving.crt
tlsPrivateKeyFile: {folder}/pki/kubelet-serving.key
clusterDNS: ["{dns}"]
clusterDomain: cluster.local
resolvConf: {folder}/resolv.conf
readOnlyPort: 0
volumePluginDir: {folder}/volumeplugins
evictionHard: {{nodefs.available: "1%", imagefs.available: "1%", memory.available: 100Mi}}
imageGCHighThresholdPercent: 100
nodeLeaseDurationSeconds: 16
maxPods: 60
"""

AUTHENTICATION = """\
# Who comes with an ID token of an issuer that is named here is known by it; the API server reads changes as they come.
apiVersion: apiserver.config.k8s.io/v1
kind: AuthenticationConfiguration
anonymous: {enabled: false}
jwt: []
"""

PROXY = """\
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: iptables
clusterCIDR: {pods}
hostnameOverride: {node}
clientConnection: {{kubeconfig: {folder}/kube-proxy.kubeconfig}}
# zero: leave the kernel's connection tracking settings, they are the host's
conntrack: {{maxPerCore: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}}
"""


def write(instance: Instance, pause: str) -> None:
    folder = instance.folder
    values = {
        "cgroup": instance.cgroup,
        # In cgroup v1 no pod may have more than the group around it: there the limits of pods are left out.
        "quota": "false" if instance.parent_cgroup else "true",
        "node": instance.node,
        "folder": folder,
        "images": instance.images,
        "socket": instance.socket,
        "pods": instance.pods,
        "dns": instance.dns,
        "pause": pause,
    }
    for file, text in {"containerd.toml": CONTAINERD, "kubelet.yaml": KUBELET, "kube-proxy.yaml": PROXY}.items():
        (folder / file).write_text(text.format(**values))
    (folder / "resolv.conf").touch()  # empty: pods know the cluster's DNS only, not the machine's
    (folder / "cni").mkdir()
    addresses = {"type": "host-local", "ranges": [[{"subnet": instance.pods}]], "routes": [{"dst": "0.0.0.0/0"}]}
    # A cable for each pod: what goes from pod to pod is routed then, so that NetworkPolicies see it.
    cable = {"type": "ptp", "ipMasq": True, "ipam": addresses}
    plugins = [cable, {"type": "portmap", "capabilities": {"portMappings": True}}]
    network = {"cniVersion": "1.0.0", "name": instance.name, "plugins": plugins}
    (folder / "cni" / "10-pods.conflist").write_text(json.dumps(network))


def environment(instance: Instance, binaries: Path, control_plane: bool) -> dict[str, str]:
    """The variables that node.sh reads."""
    return {
        "BIN": str(binaries),
        "FOLDER": str(instance.folder),
        "MODE": "control-plane" if control_plane else "node",
        "NODE": instance.node,
        "ADDRESS": instance.address,
        "SERVICES": instance.services,
        "PODS": instance.pods,
    }
