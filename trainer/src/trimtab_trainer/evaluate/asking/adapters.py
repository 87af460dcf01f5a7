"""The published adapters of an evaluation, fetched into local folders: every byte verified, those prepared for."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ...contract import QuantizationSettings, Reason, StoredArtifact, digest_of
from ...data.view import CHAT_TEMPLATE
from ...errors import SettingsInvalid
from ...storage import fetch, open_store
from ...storage.layout import ADAPTER_CONFIG, ADAPTER_METRICS, ADAPTER_WEIGHTS
from ..preparing.adapters import invalid_adapter

NEEDED = (ADAPTER_WEIGHTS, ADAPTER_CONFIG, ADAPTER_METRICS, CHAT_TEMPLATE)


@dataclass(frozen=True)
class FetchedAdapter:
    """A published adapter in a local folder.

    Attributes:
        role: target or baseline, for messages.
        digest: of its manifest's artifact part.
        uri: where it was fetched from.
        artifact: that part: files, base model, data and settings it was made from.
        record: its metrics.json.
    """

    role: str
    folder: Path
    digest: str
    uri: str
    artifact: dict[str, Any]
    record: dict[str, Any]

    @property
    def chat_template(self) -> str | None:
        """The chat template that lies beside it, as text; None if the base model's stands in its other files."""
        file = self.folder / CHAT_TEMPLATE
        return file.read_text() if file.exists() else None

    @property
    def quantization(self) -> QuantizationSettings:
        """Return how the base model was held when it was trained.

        Raises:
            SettingsInvalid: ARTIFACT_INVALID, its records do not say.
        """
        try:
            return QuantizationSettings.model_validate(self.record["settings"]["quantization"])
        except (KeyError, TypeError, ValidationError) as error:
            raise invalid_adapter(
                self.role, self.uri, f"its {ADAPTER_METRICS} does not say how it was quantized"
            ) from error


def fetch_adapter(settings: StoredArtifact, role: str, digest: str, folder: Path) -> FetchedAdapter:
    """Download a published adapter, every byte verified.

    Raises:
        SettingsInvalid: ARTIFACT_NOT_FOUND; ARTIFACT_CHANGED where it is not the one that was prepared for.
        ObjectMissing, ObjectDamaged: a file is not as it was published.
    """
    store = open_store(settings.uri, settings.credentials)
    manifest = fetch(store, "", folder, lambda path: path in NEEDED)
    if manifest is None:
        raise SettingsInvalid(
            f"there is no adapter at {settings.uri} any more; restore it, or evaluate another one",
            Reason.ARTIFACT_NOT_FOUND,
        )
    artifact = manifest.document.get("artifact")
    found = digest_of(artifact)
    if found != digest or not isinstance(artifact, dict):
        raise SettingsInvalid(
            f"the {role} at {settings.uri} changed after the evaluation was prepared: its digest is {found}, it was "
            f"{digest}; restore it, or start a new evaluation",
            Reason.ARTIFACT_CHANGED,
        )
    try:
        record = json.loads((folder / ADAPTER_METRICS).read_bytes())
    except (OSError, ValueError):
        record = None
    return FetchedAdapter(role, folder, digest, settings.uri, artifact, record if isinstance(record, dict) else {})
