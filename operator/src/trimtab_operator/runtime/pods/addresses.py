"""Addresses of pods as URLs have them."""

from __future__ import annotations

import ipaddress


def base_url(ip: str, port: int) -> str:
    """Return where a pod answers, IPv4 or IPv6."""
    host = f"[{ip}]" if ipaddress.ip_address(ip).version == 6 else ip
    return f"http://{host}:{port}"
