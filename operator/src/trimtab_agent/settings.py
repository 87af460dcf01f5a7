"""The agent's settings: environment variables of its container, read once."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path


class SettingsInvalid(Exception):
    """A variable is missing or cannot be read; the message names it."""


@dataclass(frozen=True)
class Settings:
    """Folders, addresses and seconds. `shared` lies at the same path in the engine's container; `state` does not."""

    namespace: str
    pod_uid: str
    shared: Path
    state: Path
    keys: Path
    desired: Path
    labels: Path
    engine_url: str
    engine_api_key: Path | None
    credentials: Path | None
    base_model_digest: str | None
    require_share: bool
    port: int
    restore_seconds: float
    remove_seconds: float
    log_level: str


def read(environment: Mapping[str, str] | None = None) -> Settings:
    """Return the settings.

    Raises:
        SettingsInvalid: naming the variable.
    """
    found = os.environ if environment is None else environment

    def required(name: str) -> str:
        if not found.get(name):
            raise SettingsInvalid(f"{name} is not set; take it from the pod's own fields (downward API)")
        return found[name]

    def number(name: str, default: float) -> float:
        try:
            return float(found.get(name) or default)
        except ValueError:
            raise SettingsInvalid(f"{name} is no number: {found[name]!r}") from None

    def optional(name: str) -> Path | None:
        return Path(found[name]) if found.get(name) else None

    return Settings(
        namespace=required("POD_NAMESPACE"),
        pod_uid=required("POD_UID"),
        shared=Path(found.get("TRIMTAB_SHARED") or "/run/trimtab"),
        state=Path(found.get("TRIMTAB_STATE") or "/var/lib/trimtab"),
        keys=Path(found.get("TRIMTAB_KEYS") or "/etc/trimtab/keys"),
        desired=Path(found.get("TRIMTAB_DESIRED") or "/etc/trimtab/desired"),
        labels=Path(found.get("TRIMTAB_LABELS") or "/etc/trimtab/pod/labels"),
        engine_url=found.get("TRIMTAB_ENGINE_URL") or "http://127.0.0.1:8000",
        engine_api_key=optional("TRIMTAB_ENGINE_API_KEY_FILE"),
        credentials=optional("TRIMTAB_CREDENTIALS"),
        base_model_digest=found.get("TRIMTAB_BASE_MODEL_DIGEST") or None,
        require_share=(found.get("TRIMTAB_REQUIRE_SHARE") or "").lower() in ("1", "true"),
        port=int(number("TRIMTAB_PORT", 8081)),
        restore_seconds=number("TRIMTAB_RESTORE_SECONDS", 300),
        remove_seconds=number("TRIMTAB_REMOVE_SECONDS", 600),
        log_level=(found.get("TRIMTAB_LOG_LEVEL") or "INFO").upper(),
    )
