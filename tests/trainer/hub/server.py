"""A model hub of our own: what huggingface_hub asks of one, over HTTP, with faults to order. Standard library alone.

Files that a real hub keeps in large-file storage are answered with a redirect to another host, and git's small ones
directly. Branches are paged through, ranges are served, and who is not allowed in is told so as the real hub does.
"""

from __future__ import annotations

import hashlib
import json
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

LARGE = (".safetensors", ".parquet", ".bin")
PAGE = 3
CHUNK = 4096


@dataclass
class Asked:
    """One request: noted before it is answered, and what became of it."""

    method: str
    path: str
    host: str
    token: str | None
    range: str | None
    status: int = 0
    sent: int = 0
    """Bytes of the body so far."""
    over: bool = False


@dataclass
class Repository:
    """A repository: its commits, and where its branches and tags point."""

    commits: dict[str, dict[str, bytes]] = field(default_factory=dict)
    refs: dict[str, str] = field(default_factory=dict)
    license: str | None = "apache-2.0"
    gated: bool = False
    private: bool = False

    def commit(self, files: dict[str, bytes], branch: str = "main") -> str:
        """Add a commit to a branch; return its hash."""
        text = json.dumps([self.refs.get(branch), {path: blob_of(data) for path, data in sorted(files.items())}])
        name = hashlib.sha1(text.encode()).hexdigest()
        self.commits[name] = dict(files)
        self.refs[branch] = name
        return name

    def resolve(self, revision: str) -> str | None:
        return revision if revision in self.commits else self.refs.get(revision)


@dataclass
class Faults:
    """What goes wrong, each until it is set back."""

    corrupt: set[str] = field(default_factory=set)
    """Files of which a byte is not what the listing says."""
    cut_after: int | None = None
    """Bytes of a large file after which the connection ends, once."""
    bytes_per_second: int | None = None
    quota: tuple[int, int | None] | None = None
    """How many requests are refused still, and the Retry-After they are told."""
    broken: int = 0
    """How many requests are answered 503 still."""
    silent: bool = False
    """Whether requests get no answer at all."""


class Hub:
    """A running server. `repositories` are keyed `models/org/name` or `datasets/org/name`."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self.repositories: dict[str, Repository] = {}
        self.tokens: set[str] = set()
        self.faults = Faults()
        self.asked: list[Asked] = []
        self.quota_at: tuple[str, int] | None = None
        self.closing = threading.Event()
        self.elsewhere = ""
        """Where large files are; "" is the same server by another name."""
        self.server = ThreadingHTTPServer((host, port), type("Handler", (_Handler,), {"hub": self}))
        self.server.daemon_threads = True
        self.port = int(self.server.server_address[1])

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def repository(self, key: str) -> Repository:
        return self.repositories.setdefault(key, Repository())

    def speak_tls(self, folder: Path) -> Path:
        """Answer by TLS from now on, large files too; return the file of the certificate, which signs itself."""
        certificate, key = folder / "hub.crt", folder / "hub.key"
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", "-subj", "/CN=hub"]
        names = ["-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
        subprocess.run([*command, *names, "-out", certificate, "-keyout", key], check=True, capture_output=True)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.elsewhere = f"https://localhost:{self.port}"
        return certificate

    def fetching(self, name: str) -> bool:
        """Tell whether somebody is being sent a large file of this name now."""
        return any(name in each.path and "x-signature=" in each.path and not each.over for each in list(self.asked))

    def order_quota_at(self, part: str, seconds: int) -> None:
        """Refuse what has this in its path, with that Retry-After."""
        self.quota_at = (part, seconds)

    def files_sent(self, suffix: str = "") -> int:
        """Return how many bytes of files with this suffix were sent."""
        return sum(each.sent for each in self.asked if "/resolve/" in each.path and each.path.endswith(suffix))


@contextmanager
def running(hub: Hub) -> Iterator[Hub]:
    thread = threading.Thread(target=hub.server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.closing.set()
        hub.server.shutdown()
        hub.server.server_close()


def blob_of(data: bytes) -> str:
    """Return the name that git gives these bytes."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


def entry_of(path: str, data: bytes) -> dict[str, Any]:
    """Return a file as listings have it."""
    entry: dict[str, Any] = {"type": "file", "path": path, "size": len(data), "oid": blob_of(data)}
    if path.endswith(LARGE):
        sha256 = hashlib.sha256(data).hexdigest()
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {len(data)}\n".encode()
        entry |= {"oid": blob_of(pointer), "lfs": {"oid": sha256, "size": len(data), "pointerSize": len(pointer)}}
    return entry


class _Refused(Exception):
    def __init__(self, status: int, code: str = "", **headers: str) -> None:
        super().__init__(code)
        self.status, self.headers = status, {**({"X-Error-Code": code} if code else {}), **headers}


class _Handler(BaseHTTPRequestHandler):
    hub: Hub
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments: object) -> None:
        """Say nothing; the hub remembers what it was asked."""

    def do_GET(self) -> None:
        self._serve()

    def do_HEAD(self) -> None:
        self._serve()

    def do_PUT(self) -> None:
        """Order a fault from outside: `PUT /-/faults` with the fields of `Faults` as JSON."""
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked = Asked(self.command, self.path, "", None, None)
        self.hub.faults = Faults(**body)
        self._json({})

    def _serve(self) -> None:
        if self.path == "/-/asked":
            asked = [asdict(each) for each in self.hub.asked]
            self.asked = Asked(self.command, self.path, "", None, None)
            return self._json(asked)
        token = (self.headers.get("Authorization") or "").removeprefix("Bearer ") or None
        host = self.headers.get("Host", "").partition(":")[0]
        self.asked = Asked(self.command, self.path, host, token, self.headers.get("Range"))
        self.hub.asked.append(self.asked)
        try:
            self._refuse_what_is_ordered()
            self._route()
        except _Refused as refused:
            self._answer(refused.status, b"", **refused.headers)
        except (BrokenPipeError, ConnectionResetError):
            self.close_connection = True
        self.asked.over = True
        return None

    def _refuse_what_is_ordered(self) -> None:
        faults, at = self.hub.faults, self.hub.quota_at
        if faults.silent:
            self.hub.closing.wait(30)
        if at is not None and at[0] in self.path:
            raise _Refused(429, **{"Retry-After": str(at[1])})
        if faults.quota is not None and faults.quota[0] > 0:
            faults.quota = (faults.quota[0] - 1, faults.quota[1])
            seconds = faults.quota[1]
            raise _Refused(429, **({"Retry-After": str(seconds)} if seconds is not None else {}))
        if faults.broken > 0:
            faults.broken -= 1
            raise _Refused(503)

    def _route(self) -> None:
        url = urlsplit(self.path)
        parts = [unquote(part) for part in url.path.strip("/").split("/")]
        if parts[0] == "api" and len(parts) >= 4:
            repository = self._repository(f"{parts[1]}/{parts[2]}/{parts[3]}", may_be_gated=True)
            what = parts[4] if len(parts) > 4 else "revision"
            commit = self._commit(repository, parts[5] if len(parts) > 5 else "main")
            if what == "tree":
                self._tree(repository.commits[commit], "/".join(parts[6:]), parse_qs(url.query))
            else:
                self._info("/".join(parts[2:4]), repository, commit)
        elif "resolve" in parts:
            if parts[0] != "datasets":
                parts = ["models", *parts]
            repository = self._repository("/".join(parts[:3]))
            commit = self._commit(repository, parts[4])
            self._file(repository.commits[commit], "/".join(parts[5:]), commit, url.query)
        else:
            raise _Refused(404)

    def _repository(self, key: str, *, may_be_gated: bool = False) -> Repository:
        repository = self.hub.repositories.get(key)
        if "x-signature=" in self.path and repository is not None:
            return repository  # a signed URL is its own permission
        given = (self.headers.get("Authorization") or "").removeprefix("Bearer ")
        if given and given not in self.hub.tokens:
            raise _Refused(401, **{"X-Error-Message": "Invalid credentials in Authorization header"})
        if repository is None or (repository.private and not given):
            raise _Refused(404 if given else 401, "RepoNotFound")
        if repository.gated and not may_be_gated and not given:
            raise _Refused(401, "GatedRepo")
        return repository

    def _commit(self, repository: Repository, revision: str) -> str:
        if (commit := repository.resolve(revision)) is None:
            raise _Refused(404, "RevisionNotFound")
        return commit

    def _info(self, name: str, repository: Repository, commit: str) -> None:
        tags = [f"license:{repository.license}"] if repository.license else []
        files = [{"rfilename": path} for path in repository.commits[commit]]
        self._json({"id": name, "sha": commit, "tags": tags, "private": repository.private, "siblings": files})

    def _tree(self, files: dict[str, bytes], folder: str, query: dict[str, list[str]]) -> None:
        prefix = f"{folder}/" if folder else ""
        below = {path: data for path, data in files.items() if path.startswith(prefix)}
        if folder and not below:
            raise _Refused(404, "EntryNotFound")
        deep = query.get("recursive", ["false"])[0].lower() == "true"
        entries = [entry_of(path, data) for path, data in below.items() if deep or "/" not in path[len(prefix) :]]
        folders = {prefix + path[len(prefix) :].split("/")[0] for path in below if "/" in path[len(prefix) :]}
        entries += [{"type": "directory", "path": each, "oid": "0" * 40, "size": 0} for each in sorted(folders)]
        start = int(query.get("cursor", ["0"])[0])
        headers = {}
        if start + PAGE < len(entries):
            here = f"{'https' if self.hub.elsewhere.startswith('https') else 'http'}://{self.headers['Host']}"
            path = urlsplit(self.path).path
            headers["Link"] = f'<{here}{path}?recursive={deep}&cursor={start + PAGE}>; rel="next"'
        self._json(entries[start : start + PAGE], **headers)

    def _file(self, files: dict[str, bytes], path: str, commit: str, query: str) -> None:
        if path not in files:
            raise _Refused(404, "EntryNotFound", **{"X-Repo-Commit": commit})
        data = files[path]
        if path.endswith(LARGE) and "x-signature=" not in query:
            sha256 = hashlib.sha256(data).hexdigest()
            host = self.hub.elsewhere or f"http://localhost:{self.hub.port}"
            elsewhere = f"{host}{urlsplit(self.path).path}?x-signature={sha256[:8]}"
            linked = {"X-Linked-Etag": f'"{sha256}"', "X-Linked-Size": str(len(data)), "Location": elsewhere}
            self._answer(302, b"", **{"X-Repo-Commit": commit, "ETag": f'"{blob_of(data)}"', **linked})
            return
        if path in self.hub.faults.corrupt:
            data = bytes([data[0] ^ 1]) + data[1:]
        headers = {"X-Repo-Commit": commit, "ETag": f'"{blob_of(files[path])}"', "Accept-Ranges": "bytes"}
        asked = self.headers.get("Range")
        start = int(asked.removeprefix("bytes=").split("-")[0]) if asked else 0
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        self._answer(206 if start else 200, data[start:], **headers)

    def _json(self, value: Any, **headers: str) -> None:
        self._answer(200, json.dumps(value).encode(), **{"Content-Type": "application/json", **headers})

    def _answer(self, status: int, body: bytes, **headers: str) -> None:
        self.asked.status = status
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        faults, large = self.hub.faults, len(body) > CHUNK and "x-signature=" in self.path
        for begin in range(0, len(body), CHUNK):
            if large and faults.cut_after is not None and self.asked.sent >= faults.cut_after:
                faults.cut_after = None
                self.close_connection = True
                self.connection.shutdown(2)
                return
            self.wfile.write(body[begin : begin + CHUNK])
            self.asked.sent += len(body[begin : begin + CHUNK])
            if large and faults.bytes_per_second is not None:
                time.sleep(CHUNK / faults.bytes_per_second)
