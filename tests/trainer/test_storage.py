"""Both stores keep the same promises: whole or absent, put once, verified, and every failure has a name."""

from __future__ import annotations

import hashlib
import os
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import ClassVar

import pytest
from trimtab_trainer.contract import Credentials, ExitCode, Reason
from trimtab_trainer.errors import SettingsInvalid, StorageFailed, TrainerError
from trimtab_trainer.storage import (
    MANIFEST,
    FileEntry,
    ObjectDamaged,
    ObjectInfo,
    ObjectMissing,
    Store,
    commit,
    fetch,
    keep,
    name_by_hash,
    open_store,
    read_manifest,
    s3,
    upload_folder,
)

from tests.trainer.conftest import ObjectStorage, write_keys


def test_what_was_put_is_listed_read_and_deleted(store: Store) -> None:
    assert store.list() == []
    store.put("b/two", b"22")
    store.put("a", b"")
    store.put("b/two", b"222")
    assert store.list() == [ObjectInfo("a", 0), ObjectInfo("b/two", 3)]
    assert store.list("b/") == store.list("b/tw") == [ObjectInfo("b/two", 3)]
    assert (store.read("a"), store.read("b/two"), store.start("b/two", 2)) == (b"", b"222", b"22")
    assert store.exists("a")
    assert not store.exists("b")
    store.delete(["a", "b/two", "never-there"])
    assert store.list() == []


def test_an_object_that_does_not_exist_is_missing_by_name(store: Store, tmp_path: Path) -> None:
    store.put("folder/file", b"")
    for path in ("none", "folder"):
        with pytest.raises(ObjectMissing, match=path):
            store.read(path)
    with pytest.raises(ObjectMissing):
        store.download("none", tmp_path / "here")
    assert list(tmp_path.glob("*here*")) == []


@pytest.mark.parametrize("size", [0, 1, s3.SINGLE_PUT_BYTES + 1])
def test_a_file_comes_back_byte_for_byte(store: Store, tmp_path: Path, size: int) -> None:
    source = tmp_path / "source"
    source.write_bytes(os.urandom(size))
    entry = store.upload(source, "deep/name with ümlaut")
    assert entry == FileEntry("deep/name with ümlaut", size, hashlib.sha256(source.read_bytes()).hexdigest())
    target = tmp_path / "new" / "target"
    assert store.download(entry.path, target, sha256=entry.sha256, size=size) == entry
    assert target.read_bytes() == source.read_bytes()
    assert store.digest(entry.path) == entry


def test_other_bytes_than_expected_never_become_a_file(store: Store, tmp_path: Path) -> None:
    store.put("object", b"hello")
    with pytest.raises(ObjectDamaged, match="sha256"):
        store.download("object", tmp_path / "target", sha256=hashlib.sha256(b"hellO").hexdigest())
    with pytest.raises(ObjectDamaged, match="5 bytes, but 6"):
        store.download("object", tmp_path / "target", size=6)
    assert not [path for path in tmp_path.iterdir() if path.name != "store"]


def test_of_sixteen_writers_exactly_one_is_first(store: Store) -> None:
    with ThreadPoolExecutor(16) as pool:
        wins = list(pool.map(lambda index: store.put_once("x/once", b"%d" % index), range(16)))
    assert wins.count(True) == 1
    assert store.read("x/once") == b"%d" % wins.index(True)
    assert [info.path for info in store.list()] == ["x/once"]


@pytest.mark.parametrize("path", ["../up", "a/../../up", "/etc/passwd", "", "a//b", "."])
def test_no_path_leaves_the_root(store: Store, path: str) -> None:
    for use in (store.read, store.exists, lambda path: store.put(path, b"")):
        with pytest.raises(ObjectDamaged):
            use(path)


def test_a_folder_exists_once_its_manifest_does(store: Store, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    (folder / "one").write_bytes(b"1")
    (folder / "sub/two").write_bytes(b"22")
    files = upload_folder(store, folder, "things/x")
    assert read_manifest(store, "things/x") is None
    assert fetch(store, "things/x", tmp_path / "copy") is None
    document = {"artifact": {"files": [files[0].to_json()]}, "files": [files[1].to_json()], "step": 3}
    assert commit(store, "things/x", document)
    assert commit(store, "things/x", document), "a repeated put of the same is no conflict"
    assert not commit(store, "things/x", {**document, "step": 4})
    manifest = fetch(store, "things/x", tmp_path / "copy")
    assert manifest is not None
    assert manifest.document["step"] == 3
    assert {entry.path for entry in manifest.files} == {"one", "sub/two"}
    assert (tmp_path / "copy/sub/two").read_bytes() == b"22"
    only = fetch(store, "things/x", tmp_path / "some", lambda path: path == "one")
    assert only is not None
    assert [path.name for path in (tmp_path / "some").iterdir()] == ["one"]


def test_a_changed_or_missing_file_of_a_manifest_is_found(store: Store, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/one").write_bytes(b"1")
    files = upload_folder(store, tmp_path / "folder", "x")
    commit(store, "x", {"files": [entry.to_json() for entry in files]})
    store.put("x/one", b"2")
    with pytest.raises(ObjectDamaged, match="x/one"):
        fetch(store, "x", tmp_path / "copy")
    store.delete(["x/one"])
    with pytest.raises(ObjectMissing, match="x/one"):
        fetch(store, "x", tmp_path / "copy")


class Kept:
    """Something of one file that two make, each with other bytes, under one content address."""

    def __init__(self, store: Store, folder: Path, data: bytes) -> None:
        self.store, self.folder, self.reads = store, folder, 0
        folder.mkdir()
        (folder / "lines.jsonl").write_bytes(data)
        self.file = name_by_hash(folder / "lines.jsonl")

    def read(self) -> bytes | None:
        self.reads += 1
        try:
            manifest = fetch(self.store, "x", self.folder / f"read-{self.reads}")
        except (ObjectDamaged, ObjectMissing):
            return None
        return None if manifest is None else self.store.read(f"x/{manifest.files[0].path}")

    def keep(self) -> bytes:
        return keep(self.store, "x", {"digest": "d"}, self.read, self.folder)


def test_who_is_first_is_kept_and_names_never_mix(store: Store, tmp_path: Path) -> None:
    first, second = (Kept(store, tmp_path / name, name.encode()) for name in ("first", "second"))
    assert first.file.name == f"lines-{hashlib.sha256(b'first').hexdigest()[:16]}.jsonl"
    assert first.keep() == b"first"
    assert second.keep() == b"first"
    assert [info.path for info in store.list("x/lines")] == [f"x/{first.file.name}"], "and nothing is uploaded twice"


@pytest.mark.parametrize("damage", ["the manifest", "a file", "a file that is gone"])
def test_what_is_not_as_it_was_written_is_kept_anew(damage: str, store: Store, tmp_path: Path) -> None:
    first, second = (Kept(store, tmp_path / name, name.encode()) for name in ("first", "second"))
    first.keep()
    match damage:
        case "the manifest":
            store.put(f"x/{MANIFEST}", b"{")
        case "a file":
            store.put(f"x/{first.file.name}", b"fiist")
        case _:
            store.delete([f"x/{first.file.name}"])
    assert second.keep() == b"second"
    assert first.keep() == b"second"


def test_what_never_is_as_it_was_written_is_said(store: Store, tmp_path: Path) -> None:
    with pytest.raises(ObjectDamaged, match="check the object storage"):
        keep(store, "x", {"digest": "d"}, lambda: None)
    assert read_manifest(store, "x") is None


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[1]", b'{"files": [{"path": "../../up", "size": 1, "sha256": ""}]}', b'{"files": [3]}']
)
def test_a_manifest_that_is_none_is_damaged(store: Store, text: bytes) -> None:
    store.put(f"x/{MANIFEST}", text)
    with pytest.raises(ObjectDamaged):
        read_manifest(store, "x")


def test_a_single_put_travels_with_its_hash(object_storage: ObjectStorage) -> None:
    store = open_store(object_storage.uri(), object_storage.credentials())
    store.put("object", b"hello")
    bucket, _, prefix = store.uri.removeprefix("s3://").partition("/")
    head = object_storage.client().head_object(Bucket=bucket, Key=f"{prefix}object", ChecksumMode="ENABLED")
    assert head["ChecksumSHA256"] == "LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ="


REFUSED = {
    "a wrong secret": ("s3://trainer/x", "wrong-secret", Reason.ACCESS_DENIED, "Secret wrong-secret-keys"),
    "an unknown access key": ("s3://trainer/x", "wrong-id", Reason.ACCESS_DENIED, "Secret wrong-id-keys"),
    "a key that may not write": ("s3://trainer/x", "reader", Reason.ACCESS_DENIED, "denied"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_refusal_names_the_reason_and_what_to_do(object_storage: ObjectStorage, name: str) -> None:
    uri, identity, reason, words = REFUSED[name]
    write_keys(object_storage.folder / "wrong-secret", object_storage.endpoint, "writer-key", "s3cr3t-canary")
    write_keys(object_storage.folder / "wrong-id", object_storage.endpoint, "id-canary", "writer-secret")
    store = open_store(uri, object_storage.credentials(identity))
    for use in (lambda: store.put("a", b""), lambda: store.put_once("a", b"")):
        with pytest.raises(SettingsInvalid, match=words) as caught:
            use()
        assert caught.value.reason is reason
        assert caught.value.exit_code is ExitCode.SETTINGS_INVALID
        assert "canary" not in str(caught.value)


def test_a_missing_bucket_is_named_on_reading_too(object_storage: ObjectStorage) -> None:
    store = open_store("s3://no-such-bucket/x/", object_storage.credentials())
    for use in (store.list, lambda: store.read("a")):
        with pytest.raises(SettingsInvalid) as caught:
            use()
        assert caught.value.reason is Reason.BUCKET_NOT_FOUND


@pytest.mark.parametrize("missing", [["AWS_ACCESS_KEY_ID"], ["AWS_SECRET_ACCESS_KEY"], ["AWS_ACCESS_KEY_ID", ""]])
def test_a_secret_that_lacks_a_key_is_named(tmp_path: Path, missing: list[str]) -> None:
    folder = write_keys(tmp_path / "keys", "http://127.0.0.1:1", "id", "secret")
    for name in missing:
        if name:
            (folder / name).unlink()
        else:
            (folder / "AWS_SECRET_ACCESS_KEY").write_text(" \n")
    with pytest.raises(SettingsInvalid, match=f"Secret the-keys lacks .*{missing[0]}") as caught:
        open_store("s3://bucket/x", Credentials(directory=str(folder), secret_name="the-keys"))
    assert caught.value.reason is Reason.CREDENTIALS_MISSING


def test_a_secret_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsInvalid, match="AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY") as caught:
        open_store("s3://bucket/x", Credentials(directory=str(tmp_path / "none"), secret_name="the-keys"))
    assert caught.value.reason is Reason.CREDENTIALS_MISSING


def test_without_any_keys_the_message_says_so(impatient: None, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    with pytest.raises(SettingsInvalid, match="secretName") as caught:
        open_store("s3://bucket/x", None).list()
    assert caught.value.reason is Reason.CREDENTIALS_MISSING


def test_a_large_upload_that_is_refused_is_named_too(object_storage: ObjectStorage, tmp_path: Path) -> None:
    (tmp_path / "large").write_bytes(bytes(s3.SINGLE_PUT_BYTES + 1))
    store = open_store(object_storage.uri(), object_storage.credentials("reader"))
    with pytest.raises(SettingsInvalid, match="Secret reader-keys") as caught:
        store.upload(tmp_path / "large", "large")
    assert caught.value.reason is Reason.ACCESS_DENIED


@pytest.mark.parametrize("certificate", ["-----BEGIN CERTIFICATE-----\nMII\n-----END CERTIFICATE-----", "/etc/ca.pem"])
def test_certificates_may_be_in_the_secret_or_at_a_path(tmp_path: Path, certificate: str) -> None:
    folder = write_keys(tmp_path / "keys", "https://127.0.0.1:1", "id", "secret")
    (folder / "AWS_CA_BUNDLE").write_text(certificate)
    store = open_store("s3://bucket/x", Credentials(directory=str(folder)))
    assert isinstance(store, s3.S3Store)
    used = store._client._endpoint.http_session._verify  # type: ignore[attr-defined]
    assert used == ("/etc/ca.pem" if certificate.startswith("/") else str(folder / "AWS_CA_BUNDLE"))


def test_keys_never_enter_the_environment(object_storage: ObjectStorage) -> None:
    before = dict(os.environ)
    open_store(object_storage.uri(), object_storage.credentials()).put("a", b"")
    assert dict(os.environ) == before


def test_rotated_keys_are_read_again(object_storage: ObjectStorage, tmp_path: Path) -> None:
    folder = write_keys(tmp_path / "keys", object_storage.endpoint, "old-key", "old-secret")
    store = open_store(object_storage.uri(), Credentials(directory=str(folder)))
    with pytest.raises(SettingsInvalid):
        store.list()
    write_keys(folder, object_storage.endpoint, "admin-key", "admin-secret")
    assert store.list() == []


def test_a_storage_that_is_down_may_be_tried_again(tmp_path: Path, impatient: None) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{unused.getsockname()[1]}"
        folder = write_keys(tmp_path / "keys", endpoint, "id", "secret")
        store = open_store("s3://bucket/x", Credentials(directory=str(folder)))
        for use in (store.list, lambda: store.read("a"), lambda: store.put("a", b""), lambda: store.exists("a")):
            with pytest.raises(StorageFailed) as caught:
                use()
            assert caught.value.exit_code is ExitCode.STORAGE_FAILED


class Flaky(BaseHTTPRequestHandler):
    """Serves one object; the first answer breaks off in the middle, writes meet another writer, lists fail."""

    protocol_version = "HTTP/1.1"
    body = os.urandom(3 << 20)
    ranges: ClassVar[list[str | None]] = []
    puts = 0
    whole = False
    """Whether it answers with all of it, whatever part was asked for."""
    says_200 = False
    """Whether it calls a part 200, as some gateways do, and says which it is in a header alone."""

    def do_GET(self) -> None:
        if "list-type" in self.path:
            self.send_error(503)
            return
        wanted = self.headers.get("Range")
        Flaky.ranges.append(wanted)
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and not self.whole else 0
        rest = self.body[start:]
        part = wanted and not self.whole
        self.send_response(206 if part and not self.says_200 else 200)
        if part:
            self.send_header("Content-Range", f"bytes {start}-{len(self.body) - 1}/{len(self.body)}")
        self.send_header("Content-Length", str(len(rest)))
        self.send_header("ETag", '"tag"')
        self.end_headers()
        self.wfile.write(rest if wanted else rest[: 2 << 20])
        self.close_connection = True

    def do_PUT(self) -> None:
        Flaky.puts += 1
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(409 if Flaky.puts < 3 else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def flaky(tmp_path: Path, impatient: None) -> Store:
    server = HTTPServer(("127.0.0.1", 0), Flaky)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    Flaky.ranges, Flaky.puts, Flaky.whole, Flaky.says_200 = [], 0, False, False
    folder = write_keys(tmp_path / "keys", f"http://127.0.0.1:{server.server_port}", "id", "secret")
    return open_store("s3://bucket/x", Credentials(directory=str(folder)))


def test_a_broken_download_goes_on_where_it_broke(flaky: Store, tmp_path: Path) -> None:
    entry = flaky.download("a", tmp_path / "a", sha256=hashlib.sha256(Flaky.body).hexdigest())
    assert entry.size == len(Flaky.body)
    assert Flaky.ranges == [None, f"bytes={2 << 20}-"]


def test_a_storage_that_knows_no_ranges_is_read_from_where_it_broke_all_the_same(flaky: Store, tmp_path: Path) -> None:
    Flaky.whole = True
    entry = flaky.download("a", tmp_path / "a", sha256=hashlib.sha256(Flaky.body).hexdigest())
    assert entry.size == len(Flaky.body)
    assert flaky.part("a", 1 << 20, 7) == Flaky.body[1 << 20 :][:7]


def test_a_part_that_a_gateway_calls_200_is_taken_for_the_part_it_is(flaky: Store, tmp_path: Path) -> None:
    Flaky.says_200 = True
    entry = flaky.download("a", tmp_path / "a", sha256=hashlib.sha256(Flaky.body).hexdigest())
    assert entry.size == len(Flaky.body)
    assert flaky.part("a", 1 << 20, 7) == Flaky.body[1 << 20 :][:7]


def test_a_conflict_is_tried_again_and_a_server_error_may_pass(flaky: Store) -> None:
    assert flaky.put_once("a", b"x")
    assert Flaky.puts == 3
    with pytest.raises(StorageFailed, match="503"):
        flaky.list()


def test_a_volume_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    store = open_store((tmp_path / "file").as_uri(), None)
    with pytest.raises(TrainerError):
        store.put("a", b"")


@pytest.mark.parametrize("uri", ["gs://bucket/x", "s3://", "http://host/x", "relative/path"])
def test_an_unknown_scheme_is_refused(uri: str) -> None:
    with pytest.raises(SettingsInvalid, match="s3://bucket/prefix"):
        open_store(uri, None)
