"""What a run left in object storage, for when its pods are gone: its curves, and where its report is.

It is read with the user's own keys, from the environment or a profile as every S3 tool has them, or with those that a
console was given, and never with those of the cluster. boto3 is an extra: who has no keys needs none.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
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


@dataclass(frozen=True)
class Keys:
    """Keys that were given by name, beside which nothing of the environment or a profile counts."""

    access_key_id: str
    secret_access_key: str = field(repr=False)
    session_token: str = field(default="", repr=False)
    endpoint_url: str = ""
    region: str = ""
    ca_bundle: str = ""

    @classmethod
    def of(cls, variables: Mapping[str, str], prefix: str) -> Keys | None:
        """Return the keys of an environment, named as every S3 tool names them behind a prefix; None without any.

        Raises:
            Invalid: one of a pair is missing.
        """

        def told(name: str) -> str:
            return variables.get(f"{prefix}AWS_{name}", "").strip()

        access, secret = told("ACCESS_KEY_ID"), told("SECRET_ACCESS_KEY")
        if bool(access) != bool(secret):
            missing = f"{prefix}AWS_{'SECRET_ACCESS_KEY' if access else 'ACCESS_KEY_ID'}"
            raise Invalid(f"{missing} is missing", "keys of an object storage are pairs")
        if not access:
            return None
        region = told("REGION") or told("DEFAULT_REGION") or "us-east-1"
        return cls(access, secret, told("SESSION_TOKEN"), told("ENDPOINT_URL"), region, told("CA_BUNDLE"))

    def client(self) -> Any:
        """Return a client of an S3 storage.

        Raises:
            Invalid: boto3 is not installed.
        """
        return _client(
            {
                "aws_access_key_id": self.access_key_id,
                "aws_secret_access_key": self.secret_access_key,
                "aws_session_token": self.session_token or None,
                "region_name": self.region,
            },
            endpoint_url=self.endpoint_url or None,
            verify=self.ca_bundle or None,
        )


def _client(keys: Mapping[str, Any], **more: Any) -> Any:
    try:
        from boto3.session import Session
        from botocore.config import Config
    except ImportError as error:
        raise Invalid("reading object storage needs boto3, which is not installed", INSTALL) from error
    settings = Config(
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        retries={"total_max_attempts": 3},
        request_checksum_calculation="when_required",  # else every S3 storage has to know those that are new
        s3={"addressing_style": "path"},
    )
    return Session(**keys).client("s3", config=settings, **more)  # the default session would keep keys of before


class Bucket:
    """One bucket, as the user of this machine's keys, or of a client that was made with others."""

    def __init__(self, name: str, client: Any = None) -> None:
        self.name = name
        self._client: Any = _client({}) if client is None else client

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

    def write(self, key: str, data: bytes, media_type: str, metadata: Mapping[str, str]) -> None:
        """Put an object, whole or not at all.

        Args:
            metadata: ASCII, up to 2 KiB.

        Raises:
            NotAllowed: there are no keys, or they may not write it.
            Unreachable: the storage does not answer.
        """
        self._asked(
            key,
            lambda: self._client.put_object(
                Bucket=self.name, Key=key, Body=data, ContentType=media_type, Metadata=dict(metadata)
            ),
        )

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
        name, folder = place_of(uri)
        return _record(f"{uri.rstrip('/')}/{METRICS}", Bucket(name).verified(folder, METRICS))
    digest = text(about.told.get("runDigest")).removeprefix("sha256:")
    if not digest:
        raise NotFound(f"{about.name} has written nothing yet", "its status has no runDigest")
    name, folder = place_of(text(mapping(about.spec.get("output")).get("uri")))
    bucket, checkpoints = Bucket(name), "/".join(filter(None, (folder, "runs", digest, "checkpoints")))
    for step in sorted(bucket.folders(f"{checkpoints}/"), reverse=True):
        try:
            told = bucket.verified(f"{checkpoints}/{step}", STATE)
        except NotFound:  # it is being written, or taken away
            continue
        return _record(f"s3://{name}/{checkpoints}/{step}/{STATE}", told)
    raise NotFound(f"no checkpoint of {about.name} is in s3://{name}/{checkpoints}", "the status tells what is known")


def place_of(uri: str) -> tuple[str, str]:
    """Return the bucket and the path of an address.

    Raises:
        Invalid: it is none of a bucket.
    """
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
