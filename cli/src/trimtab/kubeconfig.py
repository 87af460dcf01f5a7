"""Which cluster is meant, and who asks: a context of a kubeconfig, or the service account of the pod this runs in.

Most users are told by a token or a certificate, which is read here. Who is known by a plugin or an identity provider,
and who goes through a proxy, is left to the `kubernetes` package: it takes longer to import than a list to be read.
"""

from __future__ import annotations

import base64
import os
import ssl
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import urllib3

from .connection import ALIVE, Connection, of_configuration
from .errors import NotAllowed, Unreachable, near

SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
DEFAULT_PLACE = "~/.kube/config"
PROXIES = ("http_proxy", "https_proxy", "all_proxy")
IMPERSONATION = {"as": "Impersonate-User", "as-uid": "Impersonate-Uid"}
FILES = ("certificate-authority", "client-certificate", "client-key", "tokenFile")
"""Fields that are paths, meant from the folder of their kubeconfig."""
CONNECTIONS = 32
"""Kept to one API server: watches and pages at the same time take as many, and others are opened and closed."""
LISTS = ("clusters", "users", "contexts")

Body = dict[str, Any]


@dataclass(frozen=True)
class Context:
    """What a context of a kubeconfig names; paths in it are absolute.

    Attributes:
        whole: the merged kubeconfig, as the `kubernetes` package reads it.
    """

    name: str
    cluster: Body
    user: Body
    namespace: str
    whole: Body


def connection_of(context: str | None = None, kubeconfig: str | None = None) -> tuple[Connection, str]:
    """Return how to reach the cluster, and the namespace that is meant where none is said.

    Raises:
        Unreachable: there is no kubeconfig and this is no pod, or there is no such context, or none is current.
        NotAllowed: a plugin gave no credentials.
    """
    place = kubeconfig or os.environ.get("KUBECONFIG") or DEFAULT_PLACE
    try:
        whole = _merged(place)
        if whole is None:
            return _within_a_pod(place)
        named = _chosen(whole, context)
        made = _by_the_package if _needs_the_package(named) else _plain
        return made(named), named.namespace
    except (Unreachable, NotAllowed):
        raise
    except Exception as error:  # whatever the files hold, it is no kubeconfig: YAML, base64, PEM, or another shape
        what = f"the context {context}" if context else f"the kubeconfig {place}"
        raise Unreachable(f"{what} cannot be used ({error})", "look at it with kubectl config view") from error


def connection_to(address: str, user: Body, authority: str = "") -> Connection:
    """Return the connection of a user, written as in a kubeconfig, to an API server.

    Args:
        user: such as {"token": "..."}.
        authority: file with the certificates that are trusted; those of this machine if it is empty.
    """
    cluster = {"server": address, **({"certificate-authority": authority} if authority else {})}
    return _plain(Context("", cluster, user, "", {}))


def _merged(place: str) -> Body | None:
    """Return all files of a path as one, or None where none is there; as for kubectl the first that names it wins."""
    import yaml

    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    whole: Body = {}
    for each in filter(None, place.split(os.pathsep)):
        file = Path(each).expanduser()
        if not file.is_file():
            if file.exists():
                raise IsADirectoryError(f"{file} is no file")
            continue
        told = yaml.load(file.read_bytes(), loader) or {}
        if not isinstance(told, dict):
            raise TypeError(f"{file} holds no mapping")
        if not whole.get("current-context"):
            whole["current-context"] = told.get("current-context")
        for name in LISTS:
            kept = whole.setdefault(name, [])
            known = {entry["name"] for entry in kept}
            kept += [_rooted(entry, file.parent) for entry in told.get(name) or [] if entry["name"] not in known]
    return whole or None


def _rooted(entry: Body, folder: Path) -> Body:
    """Return an entry with absolute paths."""
    return {
        key: {
            name: str((folder / part).absolute()) if name in FILES and isinstance(part, str) and part else part
            for name, part in value.items()
        }
        if isinstance(value, dict)
        else value
        for key, value in entry.items()
    }


def _chosen(whole: Body, context: str | None) -> Context:
    names = [str(each["name"]) for each in whole["contexts"]]
    chosen = context or whole["current-context"]
    if not chosen:
        raise Unreachable(
            f"no context of the kubeconfig is current, and there are {len(names)} ({', '.join(names)})",
            "give --context, or choose one with kubectl config use-context",
        )
    if chosen not in names:
        hint = near(str(chosen), names) or f"the contexts are {', '.join(names) or 'none'}"
        raise Unreachable(f"the kubeconfig has no context {chosen}", hint)
    named = _entry(whole, "contexts", str(chosen))["context"]
    user = _entry(whole, "users", named["user"])["user"] if named.get("user") else {}
    cluster = _entry(whole, "clusters", named["cluster"])["cluster"]
    return Context(str(chosen), cluster, user or {}, str(named.get("namespace") or "default"), whole)


def _entry(whole: Body, place: str, name: str) -> Body:
    found: Body | None = next((each for each in whole[place] if each["name"] == name), None)
    if found is None:
        raise Unreachable(f"the kubeconfig has no {place[:-1]} {name}", "look at it with kubectl config view")
    return found


def _needs_the_package(named: Context) -> bool:
    proxied = named.cluster.get("proxy-url") or any(
        os.environ.get(each) or os.environ.get(each.upper()) for each in PROXIES
    )
    return bool(proxied or named.user.get("exec") or named.user.get("auth-provider"))


def _plain(named: Context) -> Connection:
    """Return the connection of a user with a token, a password or a certificate."""
    address = str(named.cluster["server"]).rstrip("/")
    more: dict[str, Any] = {}
    if address.startswith("https:"):
        more = {"ssl_context": _tls(named.cluster, named.user), "server_hostname": named.cluster.get("tls-server-name")}
    token, impersonated = _token(named.user), _impersonation(named.user)

    def credentials() -> Mapping[str, str]:
        told = token()
        return {**({"Authorization": told} if told else {}), **impersonated}

    return Connection(
        address, urllib3.PoolManager(retries=False, maxsize=CONNECTIONS, socket_options=ALIVE, **more), credentials
    )


def _token(user: Body) -> Callable[[], str]:
    """Return what reads the header that says who asks; files are read each time, for whoever renews them."""
    if file := user.get("tokenFile"):
        return lambda: f"Bearer {Path(file).read_text().strip()}"
    if told := user.get("token"):
        return lambda: f"Bearer {told}"
    if user.get("username") and user.get("password"):
        pair = base64.b64encode(f"{user['username']}:{user['password']}".encode()).decode()
        return lambda: f"Basic {pair}"
    return lambda: ""


def _impersonation(user: Body) -> Mapping[str, str]:
    """Return the headers of a user who acts as another.

    Raises:
        Unreachable: more is asked for than one header each can say.
    """
    if user.get("as-groups") or user.get("as-user-extra"):
        raise Unreachable(
            "the kubeconfig's user acts as groups, which is not supported", "name a user without as-groups"
        )
    return {header: str(user[name]) for name, header in IMPERSONATION.items() if user.get(name)}


def _tls(cluster: Body, user: Body) -> ssl.SSLContext:
    from urllib3.util.ssl_ import create_urllib3_context

    context = create_urllib3_context(cert_reqs=ssl.CERT_REQUIRED)
    if cluster.get("insecure-skip-tls-verify"):
        urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)  # whoever wrote the kubeconfig knows it
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    elif data := _data(cluster, "certificate-authority"):
        context.load_verify_locations(cadata=data.decode())
    else:
        context.load_default_certs()
    certificate, key = _data(user, "client-certificate"), _data(user, "client-key")
    if certificate and key:
        for file in _for_a_moment(certificate + b"\n" + key):
            context.load_cert_chain(file)
    return context


def _data(told: Body, name: str) -> bytes:
    """Return what a field has within it or in a file, empty without either."""
    if inside := told.get(f"{name}-data"):
        return base64.b64decode(inside)
    return Path(told[name]).read_bytes() if told.get(name) else b""


def _for_a_moment(data: bytes) -> Iterator[str]:
    """Yield a file that nobody else can read, and take it away: Python reads keys from files alone."""
    descriptor, name = tempfile.mkstemp()
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        yield name
    finally:
        Path(name).unlink()


def _by_the_package(named: Context) -> Connection:
    """Return the connection of a user known by a plugin or an identity provider, or behind a proxy."""
    from kubernetes.client.configuration import Configuration
    from kubernetes.config.kube_config import KubeConfigLoader

    configuration = Configuration()
    configuration.retries = False
    loader = KubeConfigLoader(config_dict=named.whole, active_context=named.name, config_base_path="")
    loader.load_and_set(configuration)
    plugin = named.user.get("exec")
    if plugin and not (configuration.api_key or configuration.cert_file):
        raise NotAllowed(
            f"the credential plugin {plugin.get('command')} of the context {named.name} gave no credentials",
            "run it by hand, or log in again",
        )
    return of_configuration(configuration, _impersonation(named.user))


def _within_a_pod(place: str) -> tuple[Connection, str]:
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT")
    token, authority = SERVICE_ACCOUNT / "token", SERVICE_ACCOUNT / "ca.crt"
    if not host or not port or not token.is_file():
        raise Unreachable(f"no cluster is configured: there is no {place}", "set KUBECONFIG, or give --kubeconfig")
    server = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
    connection = connection_to(server, {"tokenFile": str(token)}, str(authority))
    return connection, (SERVICE_ACCOUNT / "namespace").read_text().strip()
