"""Storages that are S3, but not quite: each quirk stands before a real one, and passes on what it does not refuse."""

from __future__ import annotations

import logging
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from botocore.exceptions import ClientError, EndpointConnectionError, HTTPClientError
from trimtab_trainer.contract import Credentials, ExitCode, Reason
from trimtab_trainer.errors import SettingsInvalid, StorageFailed, TrainerError
from trimtab_trainer.prepare import check_writable
from trimtab_trainer.storage import ObjectDamaged, Store, open_store
from trimtab_trainer.storage.keys import Keys, make_client
from trimtab_trainer.storage.refusal import named

from tests.trainer.conftest import ObjectStorage, write_keys
from tests.trainer.front import Asked, Quirk, Refusal, front


def store_behind(storage: ObjectStorage, folder: Path, port: int) -> Store:
    write_keys(folder, f"http://127.0.0.1:{port}", "writer-key", "writer-secret")
    return open_store(storage.uri(), Credentials(directory=str(folder), secret_name="the-keys"))


def wants_md5(asked: Asked) -> Refusal | None:
    bulk = asked.method == "POST" and "delete" in asked.path
    return (400, "MissingContentMD5") if bulk and "content-md5" not in asked.headers else None


def knows_no_bulk(asked: Asked) -> Refusal | None:
    return (501, "NotImplemented") if asked.method == "POST" else None


@pytest.mark.parametrize("quirk", [wants_md5, knows_no_bulk])
def test_where_many_objects_cannot_be_deleted_at_once_each_is_alone(
    object_storage: ObjectStorage, tmp_path: Path, quirk: Quirk
) -> None:
    with front(quirk, object_storage.endpoint) as (asked, port):
        store = store_behind(object_storage, tmp_path / "keys", port)
        for path in ("a", "b/ü", "c"):
            store.put(path, b"x")
        store.delete(["a", "b/ü", "never-there"])
        assert [info.path for info in store.list()] == ["c"]
        store.delete(["c"])
        assert store.list() == []
    assert sum(each.method == "POST" for each in asked.asked) == 1, "it is not asked again for what it does not know"


def test_a_refusal_to_delete_is_told_as_ever(object_storage: ObjectStorage, tmp_path: Path) -> None:
    def denies(asked: Asked) -> Refusal | None:
        return (403, "AccessDenied") if asked.method in ("POST", "DELETE") else None

    with front(denies, object_storage.endpoint) as (_, port):
        with pytest.raises(SettingsInvalid) as caught:
            store_behind(object_storage, tmp_path / "keys", port).delete(["a"])
        assert caught.value.reason is Reason.ACCESS_DENIED


def lacks_conditional_writes(asked: Asked) -> Refusal | None:
    return (501, "NotImplemented") if asked.method == "PUT" and "if-none-match" in asked.headers else None


def test_a_storage_without_conditional_writes_is_refused_at_once_with_the_reason(
    object_storage: ObjectStorage, tmp_path: Path
) -> None:
    with front(lacks_conditional_writes, object_storage.endpoint) as (asked, port):
        store = store_behind(object_storage, tmp_path / "keys", port)
        for use in (lambda: store.put_once("a", b"x"), lambda: check_writable(store)):
            del asked.asked[:]
            with pytest.raises(SettingsInvalid, match=r"lacks conditional writes \(If-None-Match\)") as caught:
                use()
            assert caught.value.exit_code is ExitCode.SETTINGS_INVALID
            assert sum(each.method == "PUT" for each in asked.asked) == 1, "never retried"
        store.put("b", b"x")


def test_a_storage_that_only_ignores_the_condition_is_refused_before_two_writers_meet(
    object_storage: ObjectStorage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = open_store(object_storage.uri(), object_storage.credentials())

    def ignores(path: str, data: bytes) -> bool:
        store.put(path, data)
        return True

    check_writable(store)
    monkeypatch.setattr(store, "put_once", ignores)
    with pytest.raises(SettingsInvalid, match="lacks conditional writes"):
        check_writable(store)
    assert store.list() == []


def test_a_storage_whose_answer_was_lost_has_conditional_writes_all_the_same(
    object_storage: ObjectStorage, tmp_path: Path
) -> None:
    """The write is asked for again, and finds itself in the way."""

    def lost(asked: Asked, body: bytes) -> bytes:
        if state.asked.index(asked) == len(state.asked) - 1 == 1:
            raise ConnectionResetError
        return body

    with front(lambda _: None, object_storage.endpoint) as (state, port):
        state.answered = lost
        store = store_behind(object_storage, tmp_path / "keys", port)
        check_writable(store)
        assert [each.method for each in state.asked] == ["GET", "PUT", "PUT", "HEAD", "GET", "PUT", "POST"]
        assert store.list() == []


def test_a_storage_to_which_every_condition_fails_is_refused_by_name(
    object_storage: ObjectStorage, tmp_path: Path
) -> None:
    def fails(asked: Asked) -> Refusal | None:
        return (412, "PreconditionFailed") if asked.method == "PUT" and "if-none-match" in asked.headers else None

    with (
        front(fails, object_storage.endpoint) as (_, port),
        pytest.raises(SettingsInvalid, match=r"lacks conditional writes \(If-None-Match\)"),
    ):
        check_writable(store_behind(object_storage, tmp_path / "keys", port))


def test_a_storage_that_takes_buckets_as_hosts_only_says_which_key_to_set(
    object_storage: ObjectStorage, tmp_path: Path
) -> None:
    with front(lambda _: (403, "SecondLevelDomainForbidden"), object_storage.endpoint) as (_, port):
        store = store_behind(object_storage, tmp_path / "keys", port)
        with pytest.raises(SettingsInvalid, match="AWS_S3_ADDRESSING_STYLE to virtual in Secret the-keys"):
            store.list()


STYLES = {
    None: ("storage.test", "/trainer/x/a"),
    "path": ("storage.test", "/trainer/x/a"),
    "virtual": ("trainer.storage.test", "/x/a"),
}


@pytest.mark.parametrize("style", STYLES)
def test_the_bucket_is_part_of_the_path_or_of_the_host_as_the_secret_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, style: str | None
) -> None:
    whole = socket.getaddrinfo
    monkeypatch.setattr(
        socket,
        "getaddrinfo",
        lambda host, *more, **named: whole("127.0.0.1" if str(host).endswith(".test") else host, *more, **named),
    )
    with front(lambda _: (404, "NoSuchKey")) as (asked, port):
        folder = write_keys(tmp_path / "keys", f"http://storage.test:{port}", "id", "secret")
        if style is not None:
            (folder / "AWS_S3_ADDRESSING_STYLE").write_text(f"{style}\n")
        store = open_store("s3://trainer/x", Credentials(directory=str(folder)))
        with pytest.raises(StorageFailed, match="does not exist"):
            store.read("a")
    host, path = STYLES[style]
    assert [(each.headers["host"], each.path) for each in asked.asked] == [(f"{host}:{port}", path)]


REGIONS = {
    "none": ({}, "us-east-1"),
    "AWS_REGION": ({"AWS_REGION": "eu-central-1"}, "eu-central-1"),
    "AWS_DEFAULT_REGION": ({"AWS_DEFAULT_REGION": "eu-west-3"}, "eu-west-3"),
    "both": ({"AWS_REGION": "eu-central-1", "AWS_DEFAULT_REGION": "eu-west-3"}, "eu-central-1"),
}


@pytest.mark.parametrize("case", REGIONS)
@pytest.mark.parametrize("source", ["Secret", "environment"])
def test_the_region_is_taken_by_either_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, case: str, source: str
) -> None:
    values, want = REGIONS[case]
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_PROFILE", "AWS_ENDPOINT_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
    credentials = None
    if source == "Secret":
        folder = write_keys(tmp_path / "keys", "", "id", "secret")
        for name, value in values.items():
            (folder / name).write_text(value)
        credentials = Credentials(directory=str(folder))
    else:
        for name, value in values.items():
            monkeypatch.setenv(name, value)
    store: Any = open_store("s3://bucket/x", credentials)
    assert store._client.meta.region_name == want


CANARY = "wJalrXUtnFEMIK7MDENG"
MISPLACED = {
    "a key beside the endpoint": {"AWS_ENDPOINT_URL": f"minio:9000 {CANARY}"},
    "a password in the endpoint, without a scheme": {"AWS_ENDPOINT_URL": f"user:{CANARY}@minio:9000"},
    "a password in the endpoint": {"AWS_ENDPOINT_URL": f"http://user:{CANARY}@minio:9000"},
    "a key in the query": {"AWS_ENDPOINT_URL": f"http://minio:9000/?key={CANARY}"},
    "a key after a line break": {"AWS_ENDPOINT_URL": f"http://minio:9000\n{CANARY}"},
    "a host in brackets": {"AWS_ENDPOINT_URL": f"http://[{CANARY}]"},
    "a port that is none": {"AWS_ENDPOINT_URL": f"http://minio:{CANARY}"},
    "an endpoint of another scheme": {"AWS_ENDPOINT_URL": f"ftp://{CANARY}"},
    "a key of two lines": {"AWS_SECRET_ACCESS_KEY": f"abc\n{CANARY}"},
    "a token that no header can hold": {"AWS_SESSION_TOKEN": f"{CANARY}\u00fc"},
    "a key as region": {"AWS_REGION": f"{CANARY}/+="},
    "a key as style": {"AWS_S3_ADDRESSING_STYLE": CANARY},
}


@pytest.mark.parametrize("case", MISPLACED)
def test_a_value_of_the_secret_is_refused_by_its_key_and_never_told(tmp_path: Path, case: str) -> None:
    folder = write_keys(tmp_path / "keys", "http://127.0.0.1:1", "id", "secret")
    for name, value in MISPLACED[case].items():
        (folder / name).write_text(value)
    with pytest.raises(SettingsInvalid) as caught:
        open_store("s3://bucket/x", Credentials(directory=str(folder), secret_name="the-keys"))
    (key,) = MISPLACED[case]
    assert key in caught.value.message
    assert "Secret the-keys" in caught.value.message
    assert CANARY not in caught.value.message
    assert "minio" not in caught.value.message


def test_an_endpoint_of_the_environment_is_not_told_either(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://user:{CANARY}@minio:9000")
    with pytest.raises(SettingsInvalid, match="AWS_ENDPOINT_URL of the environment") as caught:
        make_client(None, None)
    assert CANARY not in caught.value.message
    with pytest.raises(SettingsInvalid):
        make_client(Credentials(directory="/x", secret_name="s"), Keys((("AWS_ENDPOINT_URL", "minio:9000"),)))
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    monkeypatch.setenv("AWS_PROFILE", CANARY)
    with pytest.raises(
        SettingsInvalid, match=r"the environment make no client of a storage \(ProfileNotFound\)"
    ) as caught:
        make_client(None, None)
    assert CANARY not in caught.value.message


UNREACHABLE = {
    "nobody listens": ("http://127.0.0.1:{free}", "Connection refused"),
    "a host that is not known": ("http://secret-host.invalid", "host name is not known"),
    "no TLS there": ("https://127.0.0.1:{plain}", "SSLError"),
}


@pytest.mark.parametrize("case", UNREACHABLE)
def test_an_endpoint_that_cannot_be_reached_is_not_part_of_what_is_said(
    tmp_path: Path, impatient: None, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, case: str
) -> None:
    caplog.set_level(logging.WARNING)
    whole = socket.getaddrinfo

    def resolve(host: Any, *more: Any, **named: Any) -> Any:
        if str(host).endswith(".invalid"):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return whole(host, *more, **named)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    endpoint, words = UNREACHABLE[case]
    with front(lambda _: (404, "NoSuchKey")) as (_, port), socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        endpoint = endpoint.format(free=unused.getsockname()[1], plain=port)
        folder = write_keys(tmp_path / "keys", endpoint, "id", "secret")
        store = open_store("s3://bucket/x", Credentials(directory=str(folder)))
        for use in (store.list, lambda: store.read("a"), lambda: store.put_once("a", b""), lambda: store.exists("a")):
            with pytest.raises(StorageFailed, match=words) as caught:
                use()
            assert caught.value.message.startswith("s3://bucket/x")
            assert "127.0.0.1" not in caught.value.message
            assert "secret-host" not in caught.value.message
            assert caught.value.__suppress_context__, "a traceback would print the library's words"
    assert caplog.text == ""


LEAKY: dict[str, Exception] = {
    "an endpoint": EndpointConnectionError(endpoint_url=f"http://u:{CANARY}@minio", error=OSError(111, "refused")),
    "a header": HTTPClientError(error=ValueError(f"Invalid header value b'{CANARY}'")),
    "another library": OSError(f"Could not find a suitable TLS CA certificate bundle, invalid path: {CANARY}"),
    "a code that is none": ClientError({"Error": {"Code": f"x {CANARY}\n"}}, "GetObject"),
    "a denial": ClientError({"Error": {"Code": "AccessDenied", "Message": CANARY}}, "GetObject"),
}


@pytest.mark.parametrize("case", LEAKY)
def test_what_libraries_raise_is_told_in_our_words(case: str) -> None:
    error: TrainerError = named(LEAKY[case], "bucket", "s3://bucket/x", None)
    assert CANARY not in error.message
    assert "s3://bucket/x" in error.message


def test_certificates_that_are_not_there_are_named(tmp_path: Path, impatient: None) -> None:
    with front(lambda _: (404, "NoSuchKey")) as (_, port):
        folder = write_keys(tmp_path / "keys", f"https://127.0.0.1:{port}", "id", "secret")
        (folder / "AWS_CA_BUNDLE").write_text(f"/nonexistent/{CANARY}.pem")
        store = open_store("s3://bucket/x", Credentials(directory=str(folder), secret_name="the-keys"))
        with pytest.raises(SettingsInvalid, match="AWS_CA_BUNDLE in Secret the-keys") as caught:
            store.list()
    assert CANARY not in caught.value.message


class Endless(ThreadingHTTPServer):
    """Sends one object without an end."""

    sent = 0


def test_a_download_ends_where_the_object_should(tmp_path: Path, impatient: None) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            try:
                while Endless.sent < 300 << 20:
                    Endless.sent += self.wfile.write(bytes(1 << 20))
            except OSError:
                pass  # who has had enough hangs up

        def log_message(self, *_: object) -> None:
            pass

    server = Endless(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    folder = write_keys(tmp_path / "keys", f"http://127.0.0.1:{server.server_port}", "id", "secret")
    store = open_store("s3://bucket/x", Credentials(directory=str(folder)))
    try:
        for use in (
            lambda: store.download("a", tmp_path / "new" / "a", sha256="0" * 64, size=10),
            lambda: store.digest("a", 10),
            lambda: store.read("a", 10),
        ):
            with pytest.raises(ObjectDamaged, match="more than"):
                use()
    finally:
        server.shutdown()
        server.server_close()
    assert list((tmp_path / "new").iterdir()) == []
    assert Endless.sent < 64 << 20


def test_no_byte_beyond_the_declared_size_reaches_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store((tmp_path / "store").as_uri(), None)
    store.put("a", bytes(3 << 20))
    largest = 0
    whole = store.chunks

    def watched(path: str) -> Iterator[bytes]:
        nonlocal largest
        for chunk in whole(path):
            yield chunk
            largest = max([largest, *(part.stat().st_size for part in (tmp_path / "new").glob(".*part"))])

    monkeypatch.setattr(store, "chunks", watched)
    with pytest.raises(ObjectDamaged):
        store.download("a", tmp_path / "new" / "a", size=(2 << 20) + 10)
    assert largest <= (2 << 20) + 10
