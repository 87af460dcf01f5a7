"""What a run left in object storage, for when its pods are gone: its curves, and where its report is.

It is read with the user's own keys, from the environment or a profile as every S3 tool has them, and never with those
of the cluster. boto3 is an extra: who has no keys needs none.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from .errors import Invalid, NotAllowed, NotFound, Problem, Unreachable
from .objects import CustomObject, mapping, number, sequence, text

MANIFEST, METRICS, STATE = "MANIFEST.json", "metrics.json", "state.json"
MAXIMUM_BYTES = 16 << 20
"""Of one file: a curve of a million steps is smaller."""
CONNECT_SECONDS, READ_SECONDS = 10, 60
INSTALL = "install the command with it: uv tool install './cli[storage]' from a checkout"
KEYS = "put your own keys into AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, and where it is not Amazon's, AWS_ENDPOINT_URL"


@dataclass(frozen=True)
class Record:
    """What one file says of a run.

    Attributes:
        uri: of that file.
        lines: step by step, training and validation, in the order of the steps.
    """

    uri: str
    lines: tuple[str, ...]


class Bucket:
    """One bucket, as the user of this machine's keys."""

    def __init__(self, name: str) -> None:
        try:
            from boto3.session import Session
            from botocore.config import Config
        except ImportError as error:
            raise Invalid("reading object storage needs boto3, which is not installed", INSTALL) from error
        settings = Config(
            connect_timeout=CONNECT_SECONDS,
            read_timeout=READ_SECONDS,
            retries={"total_max_attempts": 3},
            s3={"addressing_style": "path"},
        )
        self.name = name
        self._client: Any = Session().client("s3", config=settings)  # the default one would keep keys of before

    def read(self, key: str) -> bytes:
        """Return an object, up to the bound.

        Raises:
            NotFound: there is none.
            NotAllowed: there are no keys, or they may not read it.
            Unreachable: the storage does not answer.
        """
        told: Any = self._asked(key, lambda: self._client.get_object(Bucket=self.name, Key=key)["Body"])
        data: bytes = self._asked(key, lambda: told.read(MAXIMUM_BYTES + 1))
        if len(data) > MAXIMUM_BYTES:
            raise Problem(
                f"s3://{self.name}/{key} is larger than {MAXIMUM_BYTES >> 20} MiB", "look at it by other means"
            )
        return data

    def folders(self, prefix: str) -> list[str]:
        """Return the names of the folders below a prefix."""
        pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.name, Prefix=prefix, Delimiter="/")

        def names() -> list[str]:
            found = [each["Prefix"] for page in pages for each in page.get("CommonPrefixes") or []]
            return [each.removeprefix(prefix).rstrip("/") for each in found]

        listed: list[str] = self._asked(prefix, names)
        return listed

    def verified(self, folder: str, name: str) -> Any:
        """Return the JSON of a file whose folder has a manifest with its hash.

        Raises:
            NotFound: there is no manifest, so there is nothing.
            Problem: what lies there is not what was written.
        """
        try:
            manifest = json.loads(self.read(f"{folder}/{MANIFEST}"))
            parts = [mapping(manifest), *map(mapping, mapping(manifest).values())]
            entries = [mapping(each) for part in parts for each in sequence(part.get("files"))]
            wanted = next(text(each.get("sha256")) for each in entries if each.get("path") == name)
            data = self.read(f"{folder}/{name}")
            if hashlib.sha256(data).hexdigest() != wanted.removeprefix("sha256:"):
                raise Problem(f"s3://{self.name}/{folder}/{name} is not what its manifest names", "do not trust it")
            return json.loads(data)
        except (ValueError, StopIteration) as error:
            raise Problem(f"s3://{self.name}/{folder} has no {name} that can be read", "do not trust it") from error

    def _asked(self, key: str, ask: Any) -> Any:
        from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

        try:
            return ask()
        except NoCredentialsError as error:
            raise NotAllowed("there are no keys of the object storage", KEYS) from error
        except ClientError as error:
            code = str(mapping(error.response.get("Error")).get("Code"))
            if code in ("NoSuchKey", "NoSuchBucket", "404"):
                raise NotFound(f"s3://{self.name}/{key} is not there") from error
            raise NotAllowed(f"the object storage says {code} to s3://{self.name}/{key}", KEYS) from error
        except (BotoCoreError, OSError) as error:
            raise Unreachable(f"the object storage does not answer ({error})", KEYS) from error


def record_of(about: CustomObject) -> Record:
    """Return what a run measured: of its adapter, or while there is none of its newest checkpoint.

    Raises:
        NotFound: nothing of it is there.
        Invalid: it is not in a bucket.
    """
    artifact = mapping(about.told.get("artifact"))
    if uri := text(artifact.get("uri")):
        name, folder = _place(uri)
        return _record(f"{uri.rstrip('/')}/{METRICS}", Bucket(name).verified(folder, METRICS))
    digest = text(about.told.get("runDigest")).removeprefix("sha256:")
    if not digest:
        raise NotFound(f"{about.name} has written nothing yet", "its status has no runDigest")
    name, folder = _place(text(mapping(about.spec.get("output")).get("uri")))
    bucket, checkpoints = Bucket(name), "/".join(filter(None, (folder, "runs", digest, "checkpoints")))
    for step in sorted(bucket.folders(f"{checkpoints}/"), reverse=True):
        try:
            told = bucket.verified(f"{checkpoints}/{step}", STATE)
        except NotFound:  # it is being written, or taken away
            continue
        return _record(f"s3://{name}/{checkpoints}/{step}/{STATE}", told)
    raise NotFound(f"no checkpoint of {about.name} is in s3://{name}/{checkpoints}", "the status tells what is known")


def _place(uri: str) -> tuple[str, str]:
    parts = urlsplit(uri)
    if parts.scheme != "s3" or not parts.netloc:
        raise Invalid(f"{uri or 'its output'} is not in a bucket", "look at the volume that it is on")
    return parts.netloc, parts.path.strip("/")


def _record(uri: str, told: Any) -> Record:
    """Return the lines of a record, whoever wrote it: what is not as expected is left out."""
    steps: list[tuple[float, int, str]] = []
    for place, name in enumerate(("curve", "evaluations")):
        for point in map(mapping, sequence(mapping(told).get(name))):
            step, loss, speed = (number(point.get(key)) for key in ("step", "loss", "tokens_per_second"))
            if step is None or loss is None:
                continue
            words = f"{'validation loss' if place else 'loss'} {loss:.4g}"
            steps.append((step, place, f"step {step:g}: {words}{f', {speed:,.0f} tokens/s' if speed else ''}"))
    return Record(uri, tuple(line for _, _, line in sorted(steps)))
