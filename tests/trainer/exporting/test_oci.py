"""An export in a real registry (CNCF Distribution, compiled once): a real image, and who may push it."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import socket
import subprocess
import tarfile
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from trimtab_local import binaries
from trimtab_trainer.__main__ import main
from trimtab_trainer.contract import Credentials, ExitCode, ExportConfig, Reason, TerminationMessage
from trimtab_trainer.errors import SettingsInvalid, StorageFailed
from trimtab_trainer.exporting.oci import registry as client
from trimtab_trainer.exporting.oci.image import INDEX, MANIFEST, REQUEST, Image, Tar, find_image
from trimtab_trainer.exporting.oci.keys import Login, read_certificates, read_login
from trimtab_trainer.exporting.oci.registry import Reference, Registry

from .models import Trained, divergence, loaded

MODULE = binaries.Module(Path(__file__).parent / "registry", {"registry": "."})
USER, PASSWORD = "pusher", "registry-password"
HASHED = "$2a$04$o3g7.WzICIlUVOaHSzbgA.xVxCmIidd7MMctmh6z4CdqBFVMsbllS"


@dataclass(frozen=True)
class Server:
    """A registry on this machine that wants a login."""

    host: str
    keys: Path
    log: Path

    @property
    def credentials(self) -> Credentials:
        return Credentials(directory=str(self.keys), secret_name="registry")

    def get(self, path: str, **headers: str) -> requests.Response:
        return requests.get(f"http://{self.host}/v2/{path}", auth=(USER, PASSWORD), headers=headers, timeout=30)


def write_login(folder: Path, host: str, password: str = PASSWORD) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    auth = base64.b64encode(f"{USER}:{password}".encode()).decode()
    (folder / ".dockerconfigjson").write_text(json.dumps({"auths": {host: {"auth": auth}}}))
    return folder


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("registry")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{free.getsockname()[1]}"
    (folder / "htpasswd").write_text(f"{USER}:{HASHED}\n")
    config = {
        "version": 0.1,
        "log": {"level": "warn"},
        "storage": {"filesystem": {"rootdirectory": str(folder / "blobs")}, "delete": {"enabled": True}},
        "http": {"addr": host, "secret": "of tests"},
        "auth": {"htpasswd": {"realm": "tests", "path": str(folder / "htpasswd")}},
    }
    (folder / "config.yml").write_text(json.dumps(config))
    program = binaries.ensure(module=MODULE) / "registry"
    with (folder / "log").open("wb") as log:
        command = [str(program), "serve", str(folder / "config.yml")]
        quiet = {**os.environ, "OTEL_TRACES_EXPORTER": "none"}
        process = subprocess.Popen(command, stdout=log, stderr=log, env=quiet)
    try:
        deadline = time.monotonic() + 300
        while True:
            try:
                requests.get(f"http://{host}/v2/", timeout=5)
                break
            except requests.ConnectionError:
                assert process.poll() is None, (folder / "log").read_text()
                assert time.monotonic() < deadline, (folder / "log").read_text()
                time.sleep(0.05)
        yield Server(host, write_login(folder / "keys", host), folder / "log")
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "PAUSE_SECONDS", 0.0)


def of_format(server: Server, repository: str, **changes: Any) -> dict[str, Any]:
    destination = {"uri": f"oci://{server.host}/{repository}", "credentials": server.credentials.to_json()}
    return {"format": "OCI", "destination": destination, **changes}


def unpacked(server: Server, repository: str, tag: str, to: Path) -> dict[str, Any]:
    """Pull an image by the protocol alone, as a container runtime does; return its index."""
    index = server.get(f"{repository}/manifests/{tag}", Accept=INDEX)
    assert index.headers["Content-Type"] == INDEX
    found: dict[str, Any] = index.json()
    for each in found["manifests"]:
        answer = server.get(f"{repository}/manifests/{each['digest']}", Accept=MANIFEST)
        assert (len(answer.content), f"sha256:{hashlib.sha256(answer.content).hexdigest()}") == (
            each["size"],
            each["digest"],
        )
        manifest = answer.json()
        config = server.get(f"{repository}/blobs/{manifest['config']['digest']}").json()
        assert config["architecture"] == each["platform"]["architecture"]
        assert config["rootfs"]["diff_ids"] == [layer["digest"] for layer in manifest["layers"]]
    for layer in manifest["layers"]:
        data = server.get(f"{repository}/blobs/{layer['digest']}").content
        assert len(data) == layer["size"]
        assert f"sha256:{hashlib.sha256(data).hexdigest()}" == layer["digest"]
        with tarfile.open(fileobj=io.BytesIO(data)) as tar:
            (folder, file) = tar.getmembers()
            assert (folder.isdir(), file.name) == (True, layer["annotations"]["org.cncf.model.filepath"])
            assert (file.mode, file.uid, file.gid, file.mtime) == (0o644, 0, 0, 0)
            assert json.loads(layer["annotations"]["org.cncf.model.file.metadata+json"])["size"] == file.size
            tar.extractall(to, filter="data")
    return found


def test_a_model_that_is_pulled_as_an_image_is_the_merged_model(server: Server, usual: Trained, tmp_path: Path) -> None:
    made, _ = usual.export(tmp_path / "scratch", **of_format(server, "models/guide:v1"))
    index = unpacked(server, "models/guide", "v1", tmp_path / "pulled")
    _, merged = usual.export(tmp_path / "scratch")
    assert divergence(loaded(merged), loaded(tmp_path / "pulled/models")) < 1e-12
    assert {each.name for each in (tmp_path / "pulled/models").iterdir()} == {
        each.name for each in merged.iterdir() if each.name != "MANIFEST.json"
    }
    assert [each["platform"]["architecture"] for each in index["manifests"]] == ["amd64", "arm64"]
    assert index["annotations"]["dev.trimtab.adapter.digest"] == usual.artifact.digest
    assert made.uri == f"oci://{server.host}/models/guide@{made.digest}"
    assert server.get(f"models/guide/manifests/{made.digest}", Accept=INDEX).json() == index
    assert made.files == len(list((tmp_path / "pulled/models").iterdir()))
    again, _ = usual.export(tmp_path / "never", **of_format(server, "models/guide:v1"))
    assert again == made
    assert not (tmp_path / "never").exists()  # nothing was made


def test_a_tag_of_something_else_is_moved_and_the_same_model_is_the_same_image(
    server: Server, usual: Trained, tmp_path: Path
) -> None:
    one, _ = usual.export(tmp_path / "scratch", **of_format(server, "models/moved"))
    other, _ = usual.export(tmp_path / "scratch", **of_format(server, "models/moved:latest", weightType="BFloat16"))
    back, _ = usual.export(tmp_path / "scratch", **of_format(server, "models/moved"))
    assert one == back != other


def refused(made: Trained, tmp_path: Path, document: dict[str, Any]) -> SettingsInvalid:
    with pytest.raises(SettingsInvalid) as caught:
        made.export(tmp_path / "scratch", **document)
    assert not (tmp_path / "scratch/base-model").exists()  # before anything is fetched or computed
    assert PASSWORD not in caught.value.message
    return caught.value


def test_a_wrong_password_is_told_before_anything_is_computed(server: Server, usual: Trained, tmp_path: Path) -> None:
    document = of_format(server, "models/guide:v2")
    keys = write_login(tmp_path / "keys", server.host, "not-the-password")
    document["destination"]["credentials"] = {"directory": str(keys), "secretName": "registry"}
    error = refused(usual, tmp_path, document)
    assert error.reason is Reason.ACCESS_DENIED
    assert error.message == (
        f"registry {server.host} does not let the login push to models/guide; correct Secret registry, or the rights "
        "there"
    )
    del document["destination"]["credentials"]
    assert "whoever has no login" in refused(usual, tmp_path, document).message


def test_last_words_and_log_have_no_password(
    server: Server, usual: Trained, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "export.json").write_text(json.dumps(usual.document(**of_format(server, "models/words:v1"))))
    told = ["--config", str(tmp_path / "export.json"), "--termination-log", str(tmp_path / "last")]
    assert main(["export", *told]) == ExitCode.DONE, (tmp_path / "last").read_text()
    last = TerminationMessage.decode((tmp_path / "last").read_text())
    assert last is not None
    assert last.exported is not None
    assert last.exported.uri.startswith(f"oci://{server.host}/models/words@sha256:")
    said = capsys.readouterr().out + (tmp_path / "last").read_text()
    assert PASSWORD not in said
    assert base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode() not in said


def test_a_person_pushes_with_one_command(server: Server, usual: Trained) -> None:
    told = ["--base-model", f"file://{usual.root}/base", "--adapter", usual.adapter.as_uri()]
    told += ["--to", f"oci://{server.host}/models/person", "--registry-directory", str(server.keys)]
    assert main(["merge", *told]) == ExitCode.DONE
    assert REQUEST in server.get("models/person/manifests/latest", Accept=INDEX).json()["annotations"]


def test_a_layer_is_a_tar_of_its_file_however_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(bytes(range(256)) * 5000 + b"end")
    tar = Tar(tmp_path / "model.bin")
    read, pieces = tar.open(), []
    while piece := read.read(1000):
        pieces.append(piece)
    assert len(tar.open()) == tar.size == len(b"".join(pieces))
    assert tar.open().read() == b"".join(pieces)
    assert f"sha256:{hashlib.sha256(b''.join(pieces)).hexdigest()}" == tar.digest
    with pytest.raises(ValueError, match="from its beginning"):
        read.seek(5)
    with tarfile.open(fileobj=io.BytesIO(b"".join(pieces))) as opened:
        member = opened.extractfile("models/model.bin")
        assert member is not None
        assert member.read() == (tmp_path / "model.bin").read_bytes()


def nobody(tmp_path: Path, host: str, **options: Any) -> Registry:
    return Registry(Reference.parse(f"oci://{host}/a"), None, None, "no Secret", **options)


def test_a_registry_that_does_not_answer_is_a_failure_of_storage(tmp_path: Path, impatient: None) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # nobody listens
        with pytest.raises(StorageFailed, match="did not take manifests/latest of a"):
            nobody(tmp_path, f"127.0.0.1:{taken.getsockname()[1]}").manifest("latest", INDEX)


def test_what_is_half_pushed_is_not_there(server: Server, tmp_path: Path) -> None:
    login = Login(USER, PASSWORD)
    registry = Registry(Reference.parse(f"oci://{server.host}/models/half"), login, None, "Secret registry")
    (tmp_path / "a").write_text("a")
    Image(registry).add(tmp_path / "a")
    assert registry.manifest("latest", INDEX) is None


@pytest.mark.parametrize("uri", ["oci://registry.example", "oci://registry.example/Upper", "s3://bucket/a", "oci:///a"])
def test_an_address_that_is_none_is_refused(usual: Trained, uri: str) -> None:
    with pytest.raises(SettingsInvalid, match="names no image"):
        Reference.parse(uri)
    with pytest.raises(ValueError, match=r"destination|oci://"):
        ExportConfig.model_validate(usual.document(format="OCI", destination={"uri": uri}))


def test_addresses_are_encrypted_but_on_this_machine() -> None:
    for uri, address in {
        "oci://registry.example:5000/a/b:1": "https://registry.example:5000/v2/a/b/",
        "oci://docker.io/org/a": "https://registry-1.docker.io/v2/org/a/",
        "oci://localhost:5000/a": "http://localhost:5000/v2/a/",
    }.items():
        assert Reference.parse(uri).address == address


LOGINS: dict[str, tuple[Any, str]] = {
    "user and password": ({"auths": {"r.example": {"username": "a", "password": "b"}}}, "r.example"),
    "both in one": ({"auths": {"https://r.example/v1/": {"auth": base64.b64encode(b"a:b").decode()}}}, "r.example"),
    "Docker Hub's own name": (
        {"auths": {"https://index.docker.io/v1/": {"username": "a", "password": "b"}}},
        "docker.io",
    ),
}


@pytest.mark.parametrize(("config", "host"), LOGINS.values(), ids=LOGINS.keys())
def test_a_login_is_read_as_kubectl_writes_it(config: Any, host: str, tmp_path: Path) -> None:
    (tmp_path / ".dockerconfigjson").write_text(json.dumps(config))
    assert read_login(Credentials(directory=str(tmp_path)), host) == Login("a", "b")
    assert read_login(Credentials(directory=str(tmp_path)), "other.example") is None
    assert "password" not in repr(Login("user", "password"))


@pytest.mark.parametrize(
    ("repository", "user"),
    [("team/guide", "team"), ("team/inner/guide", "inner"), ("teams/guide", "all"), ("team", "team")],
)
def test_of_several_logins_of_one_registry_the_one_of_the_longest_path_counts(
    repository: str, user: str, tmp_path: Path
) -> None:
    names = {
        "all": "https://r.example/v2/",
        "inner": "r.example/team/inner/",
        "team": "r.example/team",
        "no": "s.example",
    }
    config = {"auths": {name: {"username": user, "password": "b"} for user, name in names.items()}}
    (tmp_path / ".dockerconfigjson").write_text(json.dumps(config))
    assert read_login(Credentials(directory=str(tmp_path)), "r.example", repository) == Login(user, "b")


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"auths": {"r.example": {}}}', '{"auths": {"r.example": {"auth": "%%"}}}', None]
)
def test_a_secret_that_has_no_login_is_refused_without_its_content(text: str | None, tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / ".dockerconfigjson").write_text(text)
    with pytest.raises(SettingsInvalid) as caught:
        read_login(Credentials(directory=str(tmp_path), secret_name="mine"), "r.example")
    assert caught.value.reason is Reason.CREDENTIALS_MISSING
    assert "Secret mine" in caught.value.message
    assert read_certificates(Credentials(directory=str(tmp_path))) is None
    (tmp_path / "ca.crt").write_text("")
    assert read_certificates(Credentials(directory=str(tmp_path))) == str(tmp_path / "ca.crt")


class Hostile(BaseHTTPRequestHandler):
    """A registry that answers anything: status, headers and body, by method."""

    said: ClassVar[dict[str, tuple[int, dict[str, str], bytes]]] = {}
    seen: ClassVar[list[str]] = []
    logins: ClassVar[list[str | None]] = []
    broken: ClassVar[list[int]] = []
    """After how many bytes of what is put the next connections break."""

    def answer(self) -> None:
        self.seen.append(f"{self.command} {self.path}")
        self.logins.append(self.headers.get("Authorization"))
        if self.command == "PUT" and self.broken:
            self.rfile.read(self.broken.pop(0))
            self.close_connection = True
            return
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        status, headers, body = self.said.get(self.command, (404, {}, b""))
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET = do_POST = do_PUT = answer

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 its name in the base class
        """Say nothing."""


@pytest.fixture
def hostile(impatient: None) -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Hostile) as made:
        Hostile.said, Hostile.seen, Hostile.logins, Hostile.broken = {}, [], [], []
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        yield f"127.0.0.1:{made.server_port}"
        made.shutdown()
        thread.join()


@pytest.mark.parametrize("place", ["http://[", "ftp://x.example/up", "http://127.0.0.1:notaport/", "//[::1/up"])
def test_a_place_for_uploads_that_is_none_is_a_failure_of_storage(hostile: str, place: str, tmp_path: Path) -> None:
    Hostile.said = {"POST": (202, {"Location": place}, b"")}
    (tmp_path / "a").write_text("a")
    with pytest.raises(StorageFailed, match="did not take blob"):
        nobody(tmp_path, hostile).put_blob(Tar(tmp_path / "a"))


@pytest.mark.parametrize("realm", ["https://[", "http://[::1/token"])
def test_a_giver_of_tokens_that_is_no_address_is_refused(hostile: str, realm: str, tmp_path: Path) -> None:
    Hostile.said = {"HEAD": (401, {"WWW-Authenticate": f'Bearer realm="{realm}"'}, b"")}
    with pytest.raises(SettingsInvalid, match="does not let"):
        nobody(tmp_path, hostile).has_blob("sha256:0")


def test_an_answer_without_end_is_not_read_to_its_end(hostile: str, tmp_path: Path) -> None:
    Hostile.said = {"GET": (200, {}, bytes(client.ANSWER_BYTES + 1))}
    with pytest.raises(StorageFailed, match="more than 4194304 bytes"):
        nobody(tmp_path, hostile).manifest("latest", INDEX)


def test_an_image_of_impossible_size_is_not_this_export(hostile: str, tmp_path: Path) -> None:
    Hostile.said = {"HEAD": (200, {}, b"")}
    for size, found in ((10**17, None), (10, (10, 1))):
        manifest = json.dumps({"layers": [{"digest": "sha256:0", "size": size}]}).encode()
        index = {"annotations": {REQUEST: "mine"}, "manifests": [{"digest": client.digest_of_bytes(manifest)}]}
        registry = Told({"latest": json.dumps(index).encode(), client.digest_of_bytes(manifest): manifest}, hostile)
        image = find_image(registry, "latest", "mine")
        assert (image and (image.size, image.files)) == found


class Told(Registry):
    """A registry whose manifests are given."""

    def __init__(self, manifests: dict[str, bytes], host: str) -> None:
        super().__init__(Reference.parse(f"oci://{host}/a"), None, None, "no Secret")
        self._manifests = manifests

    def manifest(self, reference: str, accepted: str) -> bytes | None:
        return self._manifests.get(reference)


def test_a_manifest_of_other_bytes_than_its_digest_says_is_not_there(hostile: str, tmp_path: Path) -> None:
    Hostile.said = {"GET": (200, {}, b"{}")}
    registry = nobody(tmp_path, hostile)
    assert registry.manifest(client.digest_of_bytes(b"{}"), MANIFEST) == b"{}"
    assert registry.manifest(client.digest_of_bytes(b"{ }"), MANIFEST) is None


def test_an_upload_that_is_cut_is_begun_anew(hostile: str, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(bytes(3 << 20))
    Hostile.said = {"POST": (202, {"Location": "/up"}, b""), "PUT": (201, {}, b"")}
    Hostile.broken = [0, 1 << 20]
    nobody(tmp_path, hostile).put_blob(Tar(tmp_path / "a"))
    assert [each.split()[0] for each in Hostile.seen] == ["HEAD", *["POST", "PUT"] * 3]
    Hostile.broken = [0] * client.ATTEMPTS
    with pytest.raises(StorageFailed, match="did not take blob"):
        nobody(tmp_path, hostile).put_blob(Tar(tmp_path / "a"))


def test_what_arrived_as_something_else_was_not_taken(hostile: str, tmp_path: Path) -> None:
    """Behind a proxy that cuts bodies a registry may store what it got, and say so in a header alone."""
    (tmp_path / "a").write_text("a")
    other = {"Docker-Content-Digest": client.digest_of_bytes(b"")}
    Hostile.said = {"POST": (202, {"Location": "/up"}, b""), "PUT": (201, other, b"")}
    registry = nobody(tmp_path, hostile)
    with pytest.raises(StorageFailed, match=r"did not take blob .* has other bytes than were sent"):
        registry.put_blob(Tar(tmp_path / "a"))
    with pytest.raises(StorageFailed, match=r"did not take manifests/latest .* has other bytes than were sent"):
        registry.put_manifest("latest", b"{}", INDEX)
    Hostile.said["PUT"] = (400, {}, b'{"errors": [{"code": "DIGEST_INVALID"}]}')
    with pytest.raises(StorageFailed, match="HTTP 400"):
        registry.put_blob(Tar(tmp_path / "a"))


def test_a_login_does_not_follow_to_another_host(gate: str, hostile: str) -> None:
    Hostile.said = {"GET": (200, {}, b"{}")}
    Gatekeeper.leads = f"http://{hostile}/elsewhere"
    assert behind(gate).manifest("latest", INDEX) == b"{}"
    assert (Hostile.seen, Hostile.logins) == (["GET /elsewhere"], [None])


def test_an_answer_is_not_taken_from_where_nothing_is_encrypted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = client.Answer(200, {}, b"", "http://elsewhere.example/")
    monkeypatch.setattr(client.Answer, "read", lambda _: answer)
    registry = nobody(tmp_path, "r.example")
    monkeypatch.setattr(registry._session, "request", lambda *_, **__: None)
    with pytest.raises(requests.RequestException, match="without encryption"):
        registry._once("HEAD", "https://r.example/v2/a/blobs/sha256:0", {}, None)


@pytest.mark.parametrize(
    ("location", "place"),
    [
        ("/v2/a/blobs/uploads/1", "https://r.example:5000/v2/a/blobs/uploads/1"),
        ("http://r.example/up/1?state=x", "https://r.example:5000/up/1?state=x"),  # what decrypts is in front of it
        ("https://storage.example/up", "https://storage.example/up"),
        ("http://storage.example/up", None),
    ],
)
def test_a_model_goes_nowhere_without_encryption(tmp_path: Path, location: str, place: str | None) -> None:
    begun = client.Answer(202, {"Location": location}, b"", "https://r.example:5000/v2/a/blobs/uploads/")
    registry = nobody(tmp_path, "r.example:5000")
    if place is not None:
        assert registry._place(begun) == place
        return
    with pytest.raises(requests.RequestException, match="without encryption"):
        registry._place(begun)


class Gatekeeper(BaseHTTPRequestHandler):
    """A registry with one blob, which wants a token that is given elsewhere; Distribution leaves that to others."""

    answers: ClassVar[dict[str, int]] = {}
    """What to say first, by path, instead of what is so."""
    realm: ClassVar[str] = ""
    leads: ClassVar[str] = ""
    how: ClassVar[int] = 307
    """Where those whom it knows find the blob, if not here."""
    pause: ClassVar[str] = ""
    """How long it asks to be left alone where it says something else first."""
    seen: ClassVar[list[tuple[str, str]]] = []

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        self.seen.append((self.path, self.headers.get("Authorization", "")))
        body, pause, status = b"", "", self.answers.pop(path, 0)
        if status == 0 and path == "/token":
            known = self.headers.get("Authorization") == f"Basic {base64.b64encode(b'a:b').decode()}"
            status, body = (200, b'{"access_token": "given"}') if known else (401, b"")
        elif status == 0:
            known = self.headers.get("Authorization") == "Bearer given"
            status = (self.how if self.leads else 200) if known else 401
        elif self.pause:
            pause = self.pause
        self.send_response(status)
        if status in (301, 302, 307, 308):
            self.send_header("Location", self.leads)
        if pause:
            self.send_header("Retry-After", pause)
        if status == 401:
            self.send_header("WWW-Authenticate", f'Bearer realm="{self.realm}",service="tests",scope="ignored"')
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 its name in the base class
        """Say nothing."""


@pytest.fixture
def gate() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Gatekeeper) as made:
        host = f"127.0.0.1:{made.server_port}"
        Gatekeeper.answers, Gatekeeper.realm, Gatekeeper.seen = {}, f"http://{host}/token", []
        Gatekeeper.leads, Gatekeeper.pause, Gatekeeper.how = "", "", 307
        thread = threading.Thread(target=made.serve_forever)
        thread.start()
        yield host
        made.shutdown()
        thread.join()


def behind(host: str, user: str = "a") -> Registry:
    return Registry(Reference.parse(f"oci://{host}/team/guide"), Login(user, "b"), None, "Secret mine")


def test_a_token_is_asked_of_who_gives_it(gate: str) -> None:
    assert behind(gate).has_blob("sha256:0")
    (path,) = [path for path, _ in Gatekeeper.seen if path.startswith("/token")]
    assert parse_qs(urlsplit(path).query) == {"service": ["tests"], "scope": ["repository:team/guide:pull,push"]}


def test_the_certificates_of_the_secret_count_whatever_the_environment_says(
    gate: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Any] = []
    send = requests.adapters.HTTPAdapter.send

    def seen(self: Any, request: Any, **options: Any) -> Any:
        asked.append(options["verify"])
        return send(self, request, **options | {"verify": False})

    monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", seen)
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/of/the/environment")
    for certificates in ("/of/the/secret", None):
        Registry(Reference.parse(f"oci://{gate}/a"), Login("a", "b"), certificates, "Secret mine").has_blob("sha256:0")
    assert asked == ["/of/the/secret"] * 3 + ["/of/the/environment"] * 3  # the blob, who gives tokens, the blob


@pytest.mark.parametrize(
    ("fault", "want"),
    [
        (
            "[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed: self-signed certificate (_ssl.c:1006)",
            pytest.raises(SettingsInvalid, match=r"the certificate of registry .* is not trusted"),
        ),
        (
            "[SSL: WRONG_VERSION_NUMBER] wrong version number (_ssl.c:1006)",
            pytest.raises(SettingsInvalid, match="does not speak TLS"),
        ),
        (
            "[SSL: UNEXPECTED_EOF_WHILE_READING] EOF occurred in violation of protocol (_ssl.c:1006)",
            nullcontext(),
        ),
    ],
)
def test_a_connection_that_breaks_is_no_certificate_that_is_not_trusted(
    gate: str, fault: str, want: AbstractContextManager[object], monkeypatch: pytest.MonkeyPatch
) -> None:
    send, faults = requests.adapters.HTTPAdapter.send, [fault]

    def broken_once(self: Any, request: Any, **options: Any) -> Any:
        if faults:
            raise requests.exceptions.SSLError(faults.pop())
        return send(self, request, **options)

    monkeypatch.setattr(requests.adapters.HTTPAdapter, "send", broken_once)
    monkeypatch.setattr("trimtab_trainer.exporting.oci.registry.PAUSE_SECONDS", 0)
    with want:
        assert behind(gate).has_blob("sha256:0")


def test_who_is_not_known_there_is_told(gate: str) -> None:
    with pytest.raises(SettingsInvalid, match="does not let the login push to team/guide; correct Secret mine"):
        behind(gate, user="other").has_blob("sha256:0")


@pytest.mark.parametrize("realm", ["http://elsewhere.example/token", "ftp://127.0.0.1/token", ""])
def test_a_login_goes_to_nobody_without_encryption(gate: str, realm: str) -> None:
    Gatekeeper.realm = realm
    with pytest.raises(SettingsInvalid, match="does not let"):
        behind(gate).has_blob("sha256:0")
    assert all(not said.startswith("Basic") for _, said in Gatekeeper.seen)


@pytest.mark.parametrize("status", [500, 503, 429, 408])
def test_what_passes_is_asked_again(gate: str, status: int, impatient: None) -> None:
    Gatekeeper.answers = {"/v2/team/guide/blobs/sha256:0": status}
    assert behind(gate).has_blob("sha256:0")


@pytest.mark.parametrize("path", ["/v2/team/guide/blobs/sha256:0", "/token"])
def test_a_registry_is_left_alone_as_long_as_it_asks(
    gate: str, path: str, impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    Gatekeeper.answers, Gatekeeper.pause = {path: 429}, "7"
    assert behind(gate).has_blob("sha256:0")
    assert pauses == [7]
    Gatekeeper.answers, Gatekeeper.pause = {path: 429}, "600"  # longer than a pod waits: the next attempt does
    with pytest.raises(StorageFailed, match="asks to be left alone for 600 s") as caught:
        behind(gate).has_blob("sha256:0")
    assert (caught.value.retry_after, pauses) == (600, [7])


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_a_blob_that_is_kept_elsewhere_is_there_and_nobody_goes_there(gate: str, status: int, impatient: None) -> None:
    Gatekeeper.leads, Gatekeeper.how = "http://storage.invalid/blob", status
    assert behind(gate).has_blob("sha256:0")
    Gatekeeper.answers = {"/v2/team/guide/blobs/sha256:0": 404}
    assert not behind(gate).has_blob("sha256:0")


def test_what_does_not_pass_is_told(gate: str, impatient: None) -> None:
    Gatekeeper.answers = {"/v2/team/guide/blobs/sha256:0": 405}
    with pytest.raises(StorageFailed, match="HTTP 405"):
        behind(gate).has_blob("sha256:0")


def test_a_token_that_is_none_is_no_token(gate: str, impatient: None) -> None:
    Gatekeeper.answers = {"/token": 200}
    with pytest.raises(SettingsInvalid, match="does not let"):
        behind(gate).has_blob("sha256:0")
