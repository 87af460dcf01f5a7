"""The `export` stage: `<destination>/exports/<digest of what it is made from>/`, the manifest last, once.

    model*.safetensors, config.json, generation_config.json, tokenizer*, chat_template.jinja    the model, Merged
    model.gguf                                                                                  the model, GGUF
    README.md                                                                                   what it was made of
    MANIFEST.json    {artifact: {files, adapter, baseModel, export}, records: {files}, lineage}

Format OCI goes to a registry instead: the files of Merged, each a layer (`oci.image`).

A shard is made, stored and forgotten before the next: the disk holds the base model and one shard. What is there and
verifies is not made again.
"""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from ..base.base_model import CONFIG, GENERATION_CONFIG, INDEX, TOKENIZER, fetch_base_model, invalid
from ..contract import ExportConfig, Exported, ExportFormat, Reason, WeightType, digest_of
from ..contract.exporting import OCI_SCHEME
from ..data.view import CHAT_TEMPLATE
from ..errors import SettingsInvalid, StorageFailed
from ..progress import ProgressBoard
from ..publishing.publish import write_json
from ..report import Report
from ..storage import (
    MANIFEST,
    FileEntry,
    Manifest,
    ObjectDamaged,
    ObjectMissing,
    Store,
    commit,
    open_store,
    read_manifest,
    verify,
)
from ..storage.layout import ADAPTER_CONFIG, ADAPTER_WEIGHTS, export_prefix
from .adaptation import Adaptation, NotMergeable
from .card import model_card
from .gguf.families import EMBEDDING, HEAD
from .gguf.file import MODEL, write_model
from .merge import Merge, with_type
from .oci.image import REQUEST, Image, find_image
from .oci.keys import login_source, read_certificates, read_login
from .oci.registry import Reference, Registry
from .request import COMPUTE_TYPES, Request, check_request, fetch_adapter_files, not_mergeable
from .tensor_files import index_of
from .training_weights import held

CARD = "README.md"


def export(config: ExportConfig, scratch: Path, report: Report, board: ProgressBoard) -> Exported:
    """Make what is asked for and store it, unless it is there; return where.

    Raises:
        SettingsInvalid: the adapter or the base model cannot be exported; nothing was computed.
        TrainerError: storage failed; nothing half-written is visible.
    """
    request = check_request(config)
    if config.format is ExportFormat.OCI:
        return _pushed(request, scratch, report, board)
    store = open_store(config.destination.uri, config.destination.credentials)
    prefix = export_prefix(request.digest)
    if (done := _made_before(store, prefix, report)) is not None:
        return _exported(store, prefix, done, request)
    board.update(activity="Loading")
    merge = _merge_of(request, scratch)
    document = _make(request, merge, store, prefix, scratch, report=report, board=board)
    if not commit(store, prefix, document):
        report.warn("another attempt stored this export first; it is the result", uri=store.address(prefix))
    manifest = _made_before(store, prefix, report)
    if manifest is None:
        raise ObjectDamaged(f"{store.address(prefix)} is not as it was stored; export it again")
    return _exported(store, prefix, manifest, request)


def _pushed(request: Request, scratch: Path, report: Report, board: ProgressBoard) -> Exported:
    """Make the merged model and push it as an image, unless the tag is of this very export; return where."""
    config = request.config
    reference, credentials = Reference.parse(config.destination.uri), config.destination.credentials
    registry = Registry(
        reference,
        read_login(credentials, reference.host, reference.repository),
        read_certificates(credentials),
        login_source(credentials),
    )
    found = find_image(registry, reference.tag, request.digest)
    if found is None:
        board.update(activity="Loading")
        made = _emptied(scratch / "export")
        image = Image(registry)
        (made / CARD).write_text(model_card(request))
        image.add(made / CARD)  # first: whether the registry takes anything shows before anything is computed
        (made / CARD).unlink()

        def store(file: Path) -> FileEntry:
            image.add(file)
            report("file pushed", file=file.name, bytes=file.stat().st_size)
            return FileEntry.read(file, file.name)

        _merged(request, _merge_of(request, scratch), made, scratch, store, board)
        board.update(activity="Publishing", step=len(request.base.shards))
        image.commit(
            reference.tag,
            {
                "org.opencontainers.image.title": request.name,
                REQUEST: request.digest,
                "dev.trimtab.adapter.digest": request.adapter.digest,
                "dev.trimtab.base-model.digest": request.base_digest,
            },
        )
        found = find_image(registry, reference.tag, request.digest)
    if found is None:
        raise StorageFailed(f"{config.destination.uri} is not what was pushed to it; somebody else pushes there too")
    return Exported(
        uri=f"{OCI_SCHEME}{reference.host}/{reference.repository}@{found.digest}",
        digest=found.digest,
        size_bytes=found.size,
        files=found.files,
        adapter_digest=request.adapter.digest,
        base_model_digest=request.base_digest,
    )


def _emptied(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def _merge_of(request: Request, scratch: Path) -> Merge:
    """Fetch the adapter, look whether all of it has its place, and only then fetch the base model."""
    adapter, base = scratch / "adapter", scratch / "base-model"
    fetch_adapter_files(request.adapter, adapter, frozenset({ADAPTER_CONFIG, ADAPTER_WEIGHTS, *TOKENIZER}))
    described = scratch / "config"  # of its own: in the other folder lie links to the base model's own files
    described.mkdir(parents=True, exist_ok=True)
    write_json(described / CONFIG, request.base.config)
    try:
        merge = Merge.of(
            base,
            held(described, request.shapes, request.quantization, COMPUTE_TYPES[request.compute_type]),
            request.shapes,
            Adaptation.read(adapter),
            quantization=request.quantization,
            compute_type=COMPUTE_TYPES[request.compute_type],
            # Rounded where it is written, for there vectors are not.
            weight_type=WeightType.FLOAT32 if request.conversion is not None else request.config.weight_type,
        )
    except NotMergeable as error:
        raise not_mergeable(request.config, error) from error
    fetch_base_model(request.config.base_model, base, request.base_digest)
    return merge


def _make(
    request: Request, merge: Merge, store: Store, prefix: str, scratch: Path, *, report: Report, board: ProgressBoard
) -> dict[str, Any]:
    """Store all files but the manifest; return that."""
    made = _emptied(scratch / "export")
    make = _merged if request.conversion is None else _gguf
    files = make(request, merge, made, scratch, lambda file: _stored(store, prefix, file, report), board)
    board.update(activity="Publishing", step=len(request.base.shards))
    (made / CARD).write_text(model_card(request))
    records = [_stored(store, prefix, made / CARD, report)]
    return {
        "artifact": {
            "files": [entry.to_json() for entry in sorted(files)],
            "adapter": request.adapter.digest,
            "baseModel": request.base_digest,
            "export": {
                "format": request.config.format.value,
                "weightType": request.config.weight_type.value,
                "quantization": request.quantization.to_json(),
                "computeType": request.compute_type,
            },
        },
        "records": {"files": [entry.to_json() for entry in records]},
        "lineage": {"adapter": request.config.adapter.uri, "baseModel": request.config.base_model.uri},
    }


def _merged(  # noqa: PLR0917 what every format is given
    request: Request, merge: Merge, made: Path, scratch: Path, store: Callable[[Path], FileEntry], board: ProgressBoard
) -> list[FileEntry]:
    """Make and store the files of a merged model, one shard after the other."""
    shards = request.base.shards
    planned = {shard: merge.planned(shard) for shard in shards}
    files = []
    for number, shard in enumerate(shards):
        board.update(activity="Exporting", step=number, total_steps=len(shards))
        merge.write(shard, planned[shard], made / shard)
        files.append(store(made / shard))
        (made / shard).unlink()
    _write_settings(request, merge, scratch, made)
    if INDEX in request.base.sizes:
        write_json(made / INDEX, index_of(planned))
    return files + [store(file) for file in sorted(made.iterdir())]


def _gguf(  # noqa: PLR0917 what every format is given
    request: Request, merge: Merge, made: Path, scratch: Path, store: Callable[[Path], FileEntry], board: ProgressBoard
) -> list[FileEntry]:
    """Make and store the one file of a GGUF model."""
    assert request.conversion is not None
    conversion, shards = request.conversion, request.base.shards
    if request.base.config.get("tie_word_embeddings") and merge.alike(shards, HEAD, EMBEDDING):
        # llama.cpp takes the embedding where there is no head. One of other values is used, tied or not.
        conversion = conversion.without(HEAD)
    order = [each.name for shard in shards for each in merge.planned(shard)]
    if twice := sorted({name for name, count in Counter(order).items() if count > 1} & conversion.layout.names.keys()):
        raise invalid(f"{twice[0]} is in two of its files, and only one of them can be in a GGUF; upload it again")
    settings = made / "settings"
    settings.mkdir()
    _write_settings(request, merge, scratch, settings)

    def tensors() -> Iterator[tuple[str, Tensor]]:
        for number, shard in enumerate(shards):
            board.update(activity="Exporting", step=number, total_steps=len(shards))
            yield from merge.tensors(shard)

    write_model(
        made / MODEL,
        conversion,
        shapes=request.shapes,
        order=order,
        tensors=tensors(),
        weight_type=request.config.weight_type,
        name=request.name,
        folder=settings,
    )
    return [store(made / MODEL)]


def _write_settings(request: Request, merge: Merge, scratch: Path, made: Path) -> None:
    """Write what lies beside the weights: the config, and the tokenizer and chat template of the adapter."""
    base, adapter = scratch / "base-model", scratch / "adapter"
    write_json(made / CONFIG, with_type(request.base.config, merge.stored))
    for name in (GENERATION_CONFIG, *TOKENIZER):
        source = adapter / name if (adapter / name).exists() else base / name
        if source.exists():
            shutil.copyfile(source, made / name)
    if (made / CHAT_TEMPLATE).exists():
        _drop_template(made / "tokenizer_config.json")


def _drop_template(file: Path) -> None:
    """Leave one chat template where there are two: some tools read the older place first."""
    if not file.exists():
        return
    settings = json.loads(file.read_bytes())
    if settings.pop("chat_template", None) is not None:
        write_json(file, settings)


def _stored(store: Store, prefix: str, file: Path, report: Report) -> FileEntry:
    entry = store.upload(file, f"{prefix}/{file.name}")
    report("file stored", file=file.name, bytes=entry.size)
    return FileEntry(file.name, entry.size, entry.sha256)


def _made_before(store: Store, prefix: str, report: Report) -> Manifest | None:
    """Return the manifest of an export that is there, if every byte of it verifies."""
    try:
        manifest = read_manifest(store, prefix)
        if manifest is not None:
            verify(store, prefix, manifest)
    except (ObjectMissing, ObjectDamaged) as error:
        report.warn("a stored export does not verify, it is made again", uri=store.address(prefix), error=str(error))
        store.delete([f"{prefix}/{MANIFEST}"])
        return None
    return manifest


def _exported(store: Store, prefix: str, manifest: Manifest, request: Request) -> Exported:
    artifact = manifest.document.get("artifact")
    if not isinstance(artifact, dict):
        raise SettingsInvalid(
            f"{store.address(prefix)}/{MANIFEST} is none of an export; delete the folder, it is made again",
            Reason.ARTIFACT_INVALID,
        )
    return Exported(
        uri=store.address(prefix),
        digest=digest_of(artifact),
        size_bytes=sum(entry.size for entry in manifest.files),
        files=len(manifest.files),
        adapter_digest=request.adapter.digest,
        base_model_digest=request.base_digest,
    )
