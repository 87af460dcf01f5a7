"""Access keys: files in a mounted Secret's folder become a boto3 client, never environment variables."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import boto3
import botocore.loaders
import botocore.session
from botocore.config import Config

from ..contract import Credentials, Reason
from ..errors import SettingsInvalid

if TYPE_CHECKING:
    from mypy_boto3_s3.client import S3Client

REQUIRED = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
OPTIONAL = ("AWS_SESSION_TOKEN", "AWS_ENDPOINT_URL", "AWS_REGION", "AWS_CA_BUNDLE")

ATTEMPTS = 5
"""Requests per call, the first included; standard mode waits up to 1, 2, 4, 8 s between them."""

LOADER = botocore.loaders.create_loader()
"""Shared by all clients: reading botocore's description of S3 takes most of the time to make one."""


@dataclass(frozen=True, repr=False)
class Keys:
    """What the files held when they were read; compared, to see a rotation, and never printed."""

    values: tuple[tuple[str, str], ...]

    def __getitem__(self, name: str) -> str | None:
        return dict(self.values).get(name)


def read_keys(credentials: Credentials) -> Keys:
    """Read the key files.

    Raises:
        SettingsInvalid: CREDENTIALS_MISSING, naming the Secret and the keys it lacks.
    """
    folder = Path(credentials.directory)
    values = {}
    for name in REQUIRED + OPTIONAL:
        try:
            text = (folder / name).read_text().strip()
        except (FileNotFoundError, NotADirectoryError):
            continue
        except (OSError, UnicodeDecodeError) as error:
            raise SettingsInvalid(
                f"key {name} of {_source(credentials)} cannot be read: {type(error).__name__}",
                Reason.CREDENTIALS_MISSING,
            ) from None
        if text:
            values[name] = text
    missing = [name for name in REQUIRED if name not in values]
    if missing:
        raise SettingsInvalid(
            f"{_source(credentials)} lacks {' and '.join(missing)} (or they are empty); add them, "
            "or remove secretName to use the pod's workload identity",
            Reason.CREDENTIALS_MISSING,
        )
    return Keys(tuple(sorted(values.items())))


def make_client(credentials: Credentials | None, keys: Keys | None) -> S3Client:
    """Return an S3 client with bounded timeouts and retries; without keys boto3 finds its own (workload identity)."""
    core = botocore.session.Session()
    core.register_component("data_loader", LOADER)
    if keys is None or credentials is None:
        session = boto3.session.Session(botocore_session=core)
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
        verify = None
    else:
        session = boto3.session.Session(
            aws_access_key_id=keys["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=keys["AWS_SECRET_ACCESS_KEY"],
            aws_session_token=keys["AWS_SESSION_TOKEN"],
            region_name=keys["AWS_REGION"],
            botocore_session=core,
        )
        endpoint = keys["AWS_ENDPOINT_URL"]
        verify = _bundle(credentials, keys["AWS_CA_BUNDLE"])
    try:
        return session.client(
            "s3",
            # botocore itself reads AWS_DEFAULT_REGION only
            region_name=session.region_name or os.environ.get("AWS_REGION") or "us-east-1",
            endpoint_url=endpoint,
            verify=verify,
            config=Config(
                connect_timeout=5,
                read_timeout=60,
                tcp_keepalive=True,
                retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
                # A host of its own per bucket needs wildcard DNS, which stores in a cluster rarely have.
                s3={"addressing_style": "path" if endpoint else "auto"},
            ),
        )
    except ValueError:
        raise SettingsInvalid(f"AWS_ENDPOINT_URL is no http(s) URL: {endpoint!r}") from None


def _bundle(credentials: Credentials, value: str | None) -> str | None:
    """Return the path of the certificates: the key's own file when it holds them, else the path it names."""
    if value is None or "-----BEGIN" not in value:
        return value
    return str(Path(credentials.directory) / "AWS_CA_BUNDLE")


def _source(credentials: Credentials) -> str:
    return f"Secret {credentials.secret_name}" if credentials.secret_name else f"folder {credentials.directory}"
