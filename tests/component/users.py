"""Users of the local control plane, each with a client certificate of their own: real names and groups."""

from __future__ import annotations

import base64
import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from tests.component.api_server import ApiServer
from tests.component.patience import Patience
from tests.unit.chart.test_objects import Grant


def kubeconfig_of(admin: Path, folder: Path, name: str, *groups: str) -> Path:
    """Write the kubeconfig of a user, signed by the control plane's own authority; `admin` is its kubeconfig."""
    pki = admin.parent / "pki"
    authority = x509.load_pem_x509_certificate((pki / "ca.crt").read_bytes())
    signer = serialization.load_pem_private_key((pki / "ca.key").read_bytes(), None)
    assert isinstance(signer, ec.EllipticCurvePrivateKey)
    key, now = ec.generate_private_key(ec.SECP256R1()), datetime.now(UTC)
    names = [(NameOID.ORGANIZATION_NAME, group) for group in groups] + [(NameOID.COMMON_NAME, name)]
    made = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(oid, value) for oid, value in names]))
        .issuer_name(authority.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False)
        .sign(signer, hashes.SHA256())
    )
    secret = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    config = yaml.safe_load(admin.read_text())
    config["users"][0]["user"] = {
        "client-certificate-data": base64.b64encode(made.public_bytes(serialization.Encoding.PEM)).decode(),
        "client-key-data": base64.b64encode(secret).decode(),
    }
    path = folder / f"{name.replace(':', '-')}.kubeconfig"
    path.write_text(json.dumps(config))
    path.chmod(0o600)
    return path


def allow(server: ApiServer, namespace: str, role: str, *users: str) -> None:
    """Let users do in a namespace what a ClusterRole says."""
    for user in users:
        answer = server.create(
            f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}/rolebindings",
            {
                "metadata": {"generateName": f"{user}-"},
                "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
                "subjects": [{"kind": "User", "name": user}],
            },
        )
        assert answer.accepted, answer.message


def may(server: ApiServer, user: str, namespace: str, grant: Grant, name: str = "") -> bool:
    group, resource, verb = grant
    plural, _, subresource = resource.partition("/")
    attributes = {"group": group, "resource": plural, "subresource": subresource, "verb": verb, "name": name}
    review = {"spec": {"user": user, "resourceAttributes": {**attributes, "namespace": namespace}}}
    answer = server.create("/apis/authorization.k8s.io/v1/subjectaccessreviews", review)
    return bool(answer.body["status"]["allowed"])


def becomes_allowed(server: ApiServer, user: str, namespace: str, grant: Grant, name: str = "") -> None:
    """Wait until the API server's authorizer has heard of roles: it watches them, and answers from what it has seen."""
    patience = Patience(f"{user} may {grant}")
    while not may(server, user, namespace, grant, name):
        patience.spend(None)
        time.sleep(0.05)
