"""Keys, certificates and kubeconfigs of one cluster: verified TLS both ways, nobody anonymous, one identity each.

Made anew at every start with openssl (about half a second); nothing of it leaves the cluster's folder.
"""

import base64
import json
import tempfile
from pathlib import Path

from trimtab_local.instance import Instance
from trimtab_local.progress import Word, run

DAYS = "30"
KUBELET_CLIENTS = "trimtab:kubelet-clients"  # group of the API server's own certificate towards kubelets
CLIENTS = {  # file -> subject; each gets a kubeconfig too
    "admin": "/O=system:masters/CN=admin",
    "kube-controller-manager": "/CN=system:kube-controller-manager",
    "kube-scheduler": "/CN=system:kube-scheduler",
    "kube-proxy": "/CN=system:kube-proxy",
    "kubelet": "/O=system:nodes/CN=system:node:{node}",
}


def make(instance: Instance) -> None:
    folder = instance.folder / "pki"
    folder.mkdir(parents=True, mode=0o700)
    for authority in ("ca", "front-ca"):
        _authority(folder, authority)
    run(["openssl", "genrsa", "-out", folder / "sa.key", "2048"])
    run(["openssl", "rsa", "-in", folder / "sa.key", "-pubout", "-out", folder / "sa.pub"])

    service = ("kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local")
    addresses = ("127.0.0.1", instance.address, instance.first_service)
    names = [f"DNS:{name}" for name in ("localhost", *service)] + [f"IP:{address}" for address in addresses]
    _certificate(folder, "apiserver", "ca", "/CN=kube-apiserver", names)
    kubelet_names = [f"DNS:{instance.node}", f"IP:{instance.address}"]
    _certificate(folder, "kubelet-serving", "ca", f"/CN={instance.node}", kubelet_names)
    _certificate(folder, "apiserver-kubelet", "ca", f"/O={KUBELET_CLIENTS}/CN=kube-apiserver-kubelet-client")
    _certificate(folder, "front-client", "front-ca", "/CN=front-proxy-client")
    for name, subject in CLIENTS.items():
        _certificate(folder, name, "ca", subject.format(node=instance.node))
        _kubeconfig(instance, folder, name)


def _authority(folder: Path, name: str) -> None:
    key = folder / f"{name}.key"
    run(["openssl", "ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", key])
    extensions = ("basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign,cRLSign")
    options = [word for extension in extensions for word in ("-addext", extension)]
    request: list[Word] = [
        "openssl",
        "req",
        "-x509",
        "-new",
        "-key",
        key,
        "-subj",
        f"/CN=trimtab-{name}",
        "-days",
        DAYS,
    ]
    run([*request, *options, "-out", folder / f"{name}.crt"])


def _certificate(folder: Path, name: str, authority: str, subject: str, names: list[str] | None = None) -> None:
    """Signed for TLS servers when it has names, for TLS clients when it has none."""
    key = folder / f"{name}.key"
    run(["openssl", "ecparam", "-genkey", "-name", "prime256v1", "-noout", "-out", key])
    request = run(["openssl", "req", "-new", "-key", key, "-subj", subject])
    extensions = [
        "basicConstraints=CA:FALSE",
        "keyUsage=digitalSignature,keyEncipherment",
        f"extendedKeyUsage={'serverAuth' if names else 'clientAuth'}",
        *([f"subjectAltName={','.join(names)}"] if names else []),
    ]
    with tempfile.NamedTemporaryFile("w", suffix=".ext") as file:
        file.write("\n".join(extensions))
        file.flush()
        signer: list[Word] = [
            "-CA",
            folder / f"{authority}.crt",
            "-CAkey",
            folder / f"{authority}.key",
            "-CAcreateserial",
        ]
        out: list[Word] = ["-extfile", file.name, "-out", folder / f"{name}.crt"]
        run(["openssl", "x509", "-req", *signer, "-days", DAYS, *out], stdin=request)


def _kubeconfig(instance: Instance, folder: Path, user: str) -> None:
    def inline(file: str) -> str:
        return base64.b64encode((folder / file).read_bytes()).decode()

    cluster = {"server": instance.api, "certificate-authority-data": inline("ca.crt")}
    credentials = {"client-certificate-data": inline(f"{user}.crt"), "client-key-data": inline(f"{user}.key")}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": instance.name, "cluster": cluster}],
        "users": [{"name": user, "user": credentials}],
        "contexts": [{"name": instance.name, "context": {"cluster": instance.name, "user": user}}],
        "current-context": instance.name,
    }
    file = instance.folder / f"{user}.kubeconfig"
    file.touch(mode=0o600)
    file.write_text(json.dumps(config))
