"""Access keys: files in a mounted Secret's folder become a boto3 client, never environment variables."""

from __future__ import annotations

import logging
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

import boto3
import botocore.loaders
import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError

from ..contract import Credentials, Reason
from ..errors import SettingsInvalid
from ..keyfiles import is_endpoint, read_key, source_of

if TYPE_CHECKING:
    from botocore.config import _S3Dict
    from mypy_boto3_s3.client import S3Client

REQUIRED = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")
OPTIONAL = (
    "AWS_SESSION_TOKEN",
    "AWS_ENDPOINT_URL",
    "AWS_REGION",
    "AWS_DEFAULT_REGION",
    "AWS_S3_ADDRESSING_STYLE",
    "AWS_CA_BUNDLE",
)
SENT = ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN")
"""Keys that become part of headers, or of what is signed."""
REGION = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")
ADDRESSING_STYLES = ("path", "virtual", "auto")

ATTEMPTS = 5
"""Requests per call, the first included; standard mode waits up to 1, 2, 4, 8 s between them."""
READ_TIMEOUT = 60
"""Seconds without a byte after which a request has failed."""

LOADER = botocore.loaders.create_loader()
"""Shared by all clients: reading botocore's description of S3 takes most of the time to make one."""

for _library in ("boto3", "botocore", "s3transfer", "urllib3"):
    # Their warnings hold URLs, and with those what an endpoint was given to keep; what they raise is told by name.
    logging.getLogger(_library).setLevel(logging.CRITICAL)


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
    folder, source = Path(credentials.directory), source_of(credentials)
    found = {name: read_key(folder / name, source) for name in REQUIRED + OPTIONAL}
    values = {name: text for name, text in found.items() if text is not None}
    missing = [name for name in REQUIRED if name not in values]
    if missing:
        raise SettingsInvalid(
            f"{source} lacks {' and '.join(missing)} (or they are empty); add them, "
            "or remove secretName to use the pod's workload identity",
            Reason.CREDENTIALS_MISSING,
        )
    for name in SENT:
        if not re.fullmatch(r"[!-~]*", values.get(name, "")):
            raise SettingsInvalid(
                f"key {name} of {source} holds a space, a line break or another character that no key "
                "has; write it anew",
                Reason.CREDENTIALS_MISSING,
            )
    return Keys(tuple(sorted(values.items())))


def make_client(credentials: Credentials | None, keys: Keys | None) -> S3Client:
    """Return an S3 client with bounded timeouts and retries; without keys boto3 finds its own (workload identity).

    Raises:
        SettingsInvalid: a key cannot be what it should be; its value is not part of the message.
    """
    source = "the environment" if keys is None or credentials is None else source_of(credentials)
    try:
        return _make_client(credentials, keys, source)
    except (ValueError, BotoCoreError) as error:
        raise SettingsInvalid(f"the keys of {source} make no client of a storage ({type(error).__name__})") from None


def _make_client(credentials: Credentials | None, keys: Keys | None, source: str) -> S3Client:
    core = botocore.session.Session()
    core.register_component("data_loader", LOADER)
    if keys is None or credentials is None:
        given = Keys(tuple(os.environ.items()))
        session = boto3.session.Session(botocore_session=core)
        endpoint = given["AWS_ENDPOINT_URL_S3"] or given["AWS_ENDPOINT_URL"]
        verify = None
    else:
        given = keys
        session = boto3.session.Session(
            aws_access_key_id=keys["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=keys["AWS_SECRET_ACCESS_KEY"],
            aws_session_token=keys["AWS_SESSION_TOKEN"],
            botocore_session=core,
        )
        endpoint = keys["AWS_ENDPOINT_URL"]
        verify = _bundle(credentials, keys["AWS_CA_BUNDLE"])
    if endpoint and not is_endpoint(endpoint):
        raise SettingsInvalid(
            f"AWS_ENDPOINT_URL of {source} is no URL of a storage: it is http:// or https:// and a host, a port where "
            "needed, and no user, password or query"
        )
    # A host of its own per bucket needs wildcard DNS, which stores in a cluster rarely have.
    style = (given["AWS_S3_ADDRESSING_STYLE"] or ("path" if endpoint else "auto")).lower()
    if style not in ADDRESSING_STYLES:
        raise SettingsInvalid(f"AWS_S3_ADDRESSING_STYLE of {source} is none of {', '.join(ADDRESSING_STYLES)}")
    # botocore itself reads AWS_DEFAULT_REGION only, and a file that a person may have
    region = given["AWS_REGION"] or given["AWS_DEFAULT_REGION"] or session.region_name or "us-east-1"
    if not REGION.fullmatch(region):
        raise SettingsInvalid(f"AWS_REGION of {source} is no name of a region")
    return session.client(
        "s3",
        region_name=region,
        endpoint_url=endpoint,
        verify=verify,
        config=Config(
            connect_timeout=5,
            read_timeout=READ_TIMEOUT,
            tcp_keepalive=True,
            retries={"mode": "standard", "total_max_attempts": ATTEMPTS},
            s3=cast("_S3Dict", {"addressing_style": style}),
        ),
    )


def _bundle(credentials: Credentials, value: str | None) -> str | None:
    """Return the path of the certificates: the key's own file when it holds them, else the path it names."""
    if value is None or "-----BEGIN" not in value:
        return value
    return str(Path(credentials.directory) / "AWS_CA_BUNDLE")
