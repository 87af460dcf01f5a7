"""The console in a cluster: `python -m trimtab.console --host console.example.com`. It has no account of its own."""

from __future__ import annotations

import argparse
import os
import sys

from ..errors import Problem

AUTHORITY = "/run/trimtab/cluster/ca.crt"


def main() -> None:
    parser = argparse.ArgumentParser(prog="trimtab.console", description=__doc__)
    parser.add_argument("--host", action="append", required=True, help="name in addresses, with a port if it has one")
    parser.add_argument("--port", type=int, default=8090)
    parser.add_argument("--namespace", default="default", help="that is shown first")
    parser.add_argument("--api-server", help="address; by default that of the cluster this runs in")
    parser.add_argument("--certificate-authority", default=AUTHORITY)
    parser.add_argument("--plain-http", action="store_true", help="browsers come without TLS: for tests alone")
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
        )
    except Problem as problem:
        sys.exit(f"error: {problem}")


def _own_cluster() -> str:
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT", "443")
    if not host:
        sys.exit("error: this is no pod: give --api-server")
    return f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"


if __name__ == "__main__":
    main()
