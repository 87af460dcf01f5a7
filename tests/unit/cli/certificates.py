"""Certificates of an authority of our own, for a server on this machine and for a user."""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID


@dataclass(frozen=True)
class Pair:
    """A certificate and its key, as files."""

    certificate: Path
    key: Path


@dataclass(frozen=True)
class Authority:
    """Whom a server and its users trust."""

    folder: Path
    pair: Pair

    def issue(self, name: str, address: str = "127.0.0.1") -> Pair:
        """Return the pair of a name, which is good for an address too."""
        return _pair(self.folder, name, self.pair, address)

    def of_a_server(self) -> ssl.SSLContext:
        """Return the settings of a server that takes nobody without a certificate."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        mine = self.issue("server")
        context.load_cert_chain(mine.certificate, mine.key)
        context.load_verify_locations(self.pair.certificate)
        context.verify_mode = ssl.CERT_REQUIRED
        return context


def authority(folder: Path) -> Authority:
    return Authority(folder, _pair(folder, "authority", None))


def _pair(folder: Path, name: str, issuer: Pair | None, address: str = "127.0.0.1") -> Pair:
    key = ec.generate_private_key(ec.SECP256R1())
    signer = key
    subject = by = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    if issuer is not None:
        loaded = serialization.load_pem_private_key(issuer.key.read_bytes(), None)
        assert isinstance(loaded, ec.EllipticCurvePrivateKey)
        signer, by = loaded, x509.load_pem_x509_certificate(issuer.certificate.read_bytes()).subject
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(by)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(minutes=5))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.BasicConstraints(ca=issuer is None, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))]), critical=False)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key()), critical=False)
        .sign(signer, hashes.SHA256())
    )
    pair = Pair(folder / f"{name}.crt", folder / f"{name}.key")
    pair.certificate.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    pair.key.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return pair
