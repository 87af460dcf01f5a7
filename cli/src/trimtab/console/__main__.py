"""The console in a cluster: `python -m trimtab.console --host console.example.com`. It has no account of its own."""

from __future__ import annotations

import argparse
import os
import sys

from ..errors import Invalid, Problem
from .provider import SCOPES, Provider, Settings

AUTHORITY = "/run/trimtab/cluster/ca.crt"
CLIENT_SECRET = "TRIMTAB_CONSOLE_OIDC_CLIENT_SECRET"
FORM_KEY, FORM_KEY_BYTES = "TRIMTAB_CONSOLE_FORM_KEY", 32
"""Key of forms, which all replicas share."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="trimtab.console", description=__doc__)
    parser.add_argument("--host", action="append", required=True, help="name in addresses, with a port if it has one")
    parser.add_argument("--port", type=int, default=8090)
    parser.add_argument("--namespace", default="default", help="that is shown first")
    parser.add_argument("--api-server", help="address; by default that of the cluster this runs in")
    parser.add_argument("--certificate-authority", default=AUTHORITY)
    parser.add_argument("--plain-http", action="store_true", help="browsers come without TLS: for tests alone")
    parser.add_argument("--oidc-issuer", default="", help="people sign in here; without it a proxy sends their tokens")
    parser.add_argument("--oidc-client-id", default="", help=f"of the console there; its secret is in {CLIENT_SECRET}")
    parser.add_argument("--oidc-scope", action="append", help=f"by default {' '.join(SCOPES)}")
    parser.add_argument("--oidc-certificate-authority", default="", help="file; by default what this machine trusts")
    options = parser.parse_args()
    from .serving import serve_cluster

    address = options.api_server or _own_cluster()
    try:
        serve_cluster(
            address,
            options.certificate_authority,
            options.namespace,
            options.host,
            options.port,
            secure=not options.plain_http,
            provider=_provider(options) if options.oidc_issuer else None,
            form_key=_form_key(),
        )
    except Problem as problem:
        sys.exit(f"error: {problem}")


def _provider(options: argparse.Namespace) -> Provider:
    settings = Settings(
        options.oidc_issuer,
        options.oidc_client_id,
        os.environ.pop(CLIENT_SECRET, "").strip(),
        tuple(options.oidc_scope or SCOPES),
        options.oidc_certificate_authority,
    )
    return Provider(settings)


def _form_key() -> bytes | None:
    key = os.environ.pop(FORM_KEY, "").encode()
    if key and len(key) < FORM_KEY_BYTES:
        raise Invalid(f"{FORM_KEY} has {len(key)} bytes", f"give {FORM_KEY_BYTES} random ones or more")
    return key or None


def _own_cluster() -> str:
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    if not host:
        sys.exit("error: this is no pod: give --api-server")
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"


if __name__ == "__main__":
    main()
