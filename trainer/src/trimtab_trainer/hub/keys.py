"""How a hub is asked: the token and the endpoint, read from a mounted Secret's folder, and never from arguments."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field
from pathlib import Path

from ..contract import Credentials, Reason
from ..errors import SettingsInvalid
from ..keyfiles import is_endpoint, read_key, source_of

HUGGING_FACE = "https://huggingface.co"
TOKEN, ENDPOINT = "HF_TOKEN", "HF_ENDPOINT"


@dataclass(frozen=True)
class HubKeys:
    """Whom to ask, and as whom.

    Attributes:
        token: None asks as anybody.
        source: where the token comes from, in words for a person.
    """

    endpoint: str
    token: str | None = field(repr=False)
    source: str


def read_hub_keys(credentials: Credentials | None) -> HubKeys:
    """Read the keys HF_TOKEN and HF_ENDPOINT, each of which may be absent.

    Without HF_ENDPOINT in the Secret, that of the environment is taken, which is no secret; a token never is.

    Raises:
        SettingsInvalid: CREDENTIALS_MISSING where the folder has neither; or one of them cannot be what it should.
    """
    source = source_of(credentials) if credentials is not None else "the environment"
    folder = Path(credentials.directory) if credentials else None
    values = {name: read_key(folder / name, source) for name in (TOKEN, ENDPOINT)} if folder is not None else {}
    token, endpoint = values.get(TOKEN), values.get(ENDPOINT) or os.environ.get(ENDPOINT) or HUGGING_FACE
    if credentials is not None and not any(values.values()):
        raise SettingsInvalid(
            f"{source} has neither {TOKEN} nor {ENDPOINT} (or they are empty); add them, or remove secretName to ask "
            "the hub without a token",
            Reason.CREDENTIALS_MISSING,
        )
    if token is not None and not re.fullmatch(r"[!-~]+", token):
        raise SettingsInvalid(
            f"key {TOKEN} of {source} holds a space, a line break or another character that no token has; "
            "write it anew",
            Reason.CREDENTIALS_MISSING,
        )
    if not is_endpoint(endpoint):
        raise SettingsInvalid(
            f"{ENDPOINT} of {source} is no URL of a hub: it is http:// or https:// and a host, and no user, password "
            "or query"
        )
    return HubKeys(endpoint.rstrip("/"), token, source)
