"""The adapters of an evaluation, found and verified: every byte, the base model they were made for, their shape."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from ...base.base_model import CONFIG, TOKENIZER
from ...contract import EvaluationConfig, Reason, StoredArtifact, digest_of
from ...contract.parsing import Unreadable, read_object
from ...data.view import CHAT_TEMPLATE, TRAIN_CLUSTERS, TRAIN_ROWS
from ...errors import SettingsInvalid
from ...publishing.result import verify_adapter
from ...report import Report
from ...storage import FileEntry, Manifest, ObjectDamaged, ObjectMissing, Store, fetch, open_store, read_manifest
from ...storage.layout import ADAPTER_CONFIG, ADAPTER_TEST_ROWS, ADAPTER_WEIGHTS, hexadecimal, view_prefix
from ...storage.tensor_header import LENGTH_BYTES, TensorPlace, header_length, read_header
from .trained_rows import Trained


@dataclass(frozen=True)
class VerifiedAdapter:
    """An adapter that verifies; `store` is rooted at the folder above it."""

    settings: StoredArtifact
    store: Store
    prefix: str
    manifest: Manifest
    digest: str

    @property
    def tokenizer(self) -> tuple[FileEntry, ...]:
        """Entries of the tokenizer's files that lie beside it."""
        return tuple(sorted(entry for entry in self.manifest.files if entry.path in TOKENIZER))

    def chat_template(self, of_base: tuple[FileEntry, ...]) -> str | None:
        """Return the chat template that it was trained with where that is not the base model's, of these files."""
        own = next((entry for entry in self.manifest.files if entry.path == CHAT_TEMPLATE), None)
        if own is None or any(entry.path == CHAT_TEMPLATE and entry.sha256 == own.sha256 for entry in of_base):
            return None
        return self.store.read(f"{self.prefix}/{own.path}").decode()

    def test_rows(self, target: Path) -> tuple[FileEntry, ...]:
        """Download the rows that training held out to a folder, verified; empty if it held out none."""
        found = [entry for entry in self.manifest.files if entry.path == ADAPTER_TEST_ROWS]
        for entry in found:
            self.store.download(
                f"{self.prefix}/{entry.path}", target / entry.path, sha256=entry.sha256, size=entry.size
            )
        return tuple(found)

    def trained(self, scratch: Path, report: Report, role: str) -> Trained | None:
        """Return what it was trained on; None where that cannot be known any more.

        It lies with the data of the run, `<output>/data/views/<data digest>`, which may have expired or may never have
        been copied with the adapter.
        """
        view = self.manifest.document["artifact"].get("data")
        if not isinstance(view, str):
            report.warn(f"what the {role} was trained on is unknown: it was imported", uri=self.uri)
            return None
        root, _, folder = self.settings.uri.rstrip("/").rpartition("/")
        if folder != hexadecimal(self.digest) or not root.endswith("/adapters"):
            report.warn(f"what the {role} was trained on is unknown: it lies outside of its output", uri=self.uri)
            return None
        output = open_store(root.removesuffix("/adapters"), self.settings.credentials)
        target = scratch / "trained" / role
        try:
            manifest = fetch(output, view_prefix(view), target, lambda path: path in (TRAIN_CLUSTERS, TRAIN_ROWS))
        except ObjectMissing:
            manifest = None
        if manifest is None or not (target / TRAIN_CLUSTERS).exists():
            report.warn(f"what the {role} was trained on is unknown: the data of its run is gone", view=view)
            return None
        keys = frozenset(bytes.fromhex(line) for line in (target / TRAIN_CLUSTERS).read_text().split())
        rows = target / TRAIN_ROWS
        if not rows.exists():
            report.warn(f"prompts and texts that the {role} was trained on are unknown: they were not kept", view=view)
        return Trained(keys, rows if rows.exists() else None)

    @property
    def uri(self) -> str:
        """Where it lies."""
        return self.settings.uri

    def config(self) -> dict[str, Any]:
        """Return its adapter_config.json; empty if that cannot be read."""
        return _json_object(self.store.read(f"{self.prefix}/{ADAPTER_CONFIG}"))

    def tensors(self) -> tuple[TensorPlace, ...]:
        """Return what the header of its weights tells; empty if that cannot be read."""
        sizes = {entry.path: entry.size for entry in self.manifest.files}
        return _tensors(self.store, f"{self.prefix}/{ADAPTER_WEIGHTS}", sizes[ADAPTER_WEIGHTS])


def find_adapter(settings: StoredArtifact, role: str, base_model_digest: str | None) -> VerifiedAdapter:
    """Return an adapter after reading every byte of it; `role` is target, baseline or anchor, for messages.

    Its base model is not compared where `base_model_digest` is not known.

    Raises:
        SettingsInvalid: ARTIFACT_NOT_FOUND, ARTIFACT_CHANGED, ARTIFACT_INVALID, BASE_MODEL_MISMATCH.
    """
    root, _, name = settings.uri.rstrip("/").rpartition("/")
    store = open_store(root, settings.credentials)
    prefix = unquote(name) if settings.uri.startswith("file:") else name
    try:
        manifest = read_manifest(store, prefix)
    except ObjectDamaged as error:
        raise invalid_adapter(role, settings.uri, "its MANIFEST.json cannot be read") from error
    if manifest is None:
        raise SettingsInvalid(
            f"there is no adapter at {settings.uri} (its MANIFEST.json is missing): correct the uri of the {role}, or "
            "wait until it is published",
            Reason.ARTIFACT_NOT_FOUND,
        )
    document = manifest.document.get("artifact")
    if not isinstance(document, dict):
        raise invalid_adapter(role, settings.uri, "its MANIFEST.json says nothing of an artifact")
    digest = digest_of(document)
    if settings.digest is not None and settings.digest != digest:
        raise SettingsInvalid(
            f"the {role} at {settings.uri} has digest {digest}, but {settings.digest} is asked for; restore it, or ask "
            "for the new one",
            Reason.ARTIFACT_CHANGED,
        )
    if base_model_digest is not None and document.get("baseModel") != base_model_digest:
        raise SettingsInvalid(
            f"the {role} at {settings.uri} was made for the base model {document.get('baseModel')}, but this one has "
            f"digest {base_model_digest}; give the base model it was trained on",
            Reason.BASE_MODEL_MISMATCH,
        )
    try:
        verify_adapter(store, prefix, digest)
    except (ObjectMissing, ObjectDamaged) as error:
        raise invalid_adapter(role, settings.uri, str(error)) from error
    found = VerifiedAdapter(settings, store, prefix, manifest, digest)
    _check_shape(found, role)
    return found


def check_tokenizers(
    config: EvaluationConfig,
    target: VerifiedAdapter | None,
    baseline: VerifiedAdapter | None,
    tokenizer: tuple[FileEntry, ...],
    role: str = "baseline",
) -> None:
    """Refuse to compare perplexities per token of two tokenizers: they count other things.

    Args:
        baseline: what is compared with; `role` is what that is, baseline or anchor.

    Raises:
        SettingsInvalid: TOKENIZER_MISMATCH.
    """
    compared = [each.metric for each in config.thresholds if each.against_baseline and each.result == "perplexity"]
    if not compared:
        return
    ours, theirs = (
        _hashes(artifact.tokenizer if artifact is not None and artifact.tokenizer else tokenizer)
        for artifact in (target, baseline)
    )
    if ours != theirs:
        names = sorted(name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name))
        raise SettingsInvalid(
            f"threshold {compared[0]} compares perplexities per token, but target and {role} have another "
            f"{names[0]}; compare {compared[0].partition('/')[0]}/bitsPerByte",
            Reason.TOKENIZER_MISMATCH,
        )


def _hashes(entries: tuple[FileEntry, ...]) -> dict[str, str]:
    return {entry.path: entry.sha256 for entry in entries if entry.path in TOKENIZER}


def _check_shape(found: VerifiedAdapter, role: str) -> None:
    """Refuse what is no LoRA of the rank it says, from adapter_config.json and the header of its weights."""
    sizes = {entry.path: entry.size for entry in found.manifest.files}
    if ADAPTER_CONFIG not in sizes and CONFIG in sizes:
        raise SettingsInvalid(
            f"the {role} at {found.uri} is a whole model and no adapter: name it as the base model instead "
            "(baseModel.uri)",
            Reason.ARTIFACT_INVALID,
        )
    for name in (ADAPTER_CONFIG, ADAPTER_WEIGHTS):
        if name not in sizes:
            raise invalid_adapter(role, found.uri, f"it has no {name}")
    settings = found.config()
    rank, kind = settings.get("r"), settings.get("peft_type")
    if kind != "LORA" or not isinstance(rank, int) or isinstance(rank, bool) or rank < 1:
        raise invalid_adapter(
            role, found.uri, f"its {ADAPTER_CONFIG} is of no LoRA adapter (peft_type {kind}, r {rank})"
        )
    pairs: dict[str, dict[str, int]] = {}
    for place in found.tensors():
        for half, axis in (("lora_A", 0), ("lora_B", 1)):
            if f".{half}." in place.name and len(place.shape) == 2:
                pairs.setdefault(place.name.partition(f".{half}.")[0], {})[half] = place.shape[axis]
    joined = bool(settings.get("target_parameters"))  # of several experts, each of this rank
    if not pairs or not all(_is_pair(pair, rank, joined) for pair in pairs.values()):
        raise invalid_adapter(role, found.uri, f"its {ADAPTER_WEIGHTS} holds no pairs of matrices of rank {rank}")


def _is_pair(pair: dict[str, int], rank: int, joined: bool) -> bool:
    inner = pair.get("lora_A", 0)
    return inner == pair.get("lora_B") and (inner == rank or (joined and inner > 0 and inner % rank == 0))


def read_config(folder: Path) -> dict[str, Any]:
    """Return the adapter_config.json of a fetched adapter; empty if it cannot be read."""
    return _json_object((folder / ADAPTER_CONFIG).read_bytes())


def _json_object(data: bytes) -> dict[str, Any]:
    try:
        return read_object(data)
    except Unreadable:
        return {}


def _tensors(store: Store, path: str, size: int) -> tuple[TensorPlace, ...]:
    try:
        begin = LENGTH_BYTES + header_length(store.start(path, LENGTH_BYTES), size)
        return read_header(store.start(path, begin)[LENGTH_BYTES:], size - begin)
    except Unreadable:
        return ()


def invalid_adapter(role: str, uri: str, trouble: str) -> SettingsInvalid:
    """Return the refusal of an adapter that cannot be used; `role` is target, baseline or anchor."""
    return SettingsInvalid(
        f"the {role} at {uri} cannot be used: {trouble}; restore it, or publish it again",
        Reason.ARTIFACT_INVALID,
    )
