"""OCI image archives: of one static program, for the two images that the node itself needs, or of blobs that are there.

Written here in a few lines so that a plain cluster needs no image builder.
"""

import hashlib
import io
import json
import tarfile
from pathlib import Path
from typing import Any


def write(file: Path, image: str, program: Path) -> None:
    """An image whose only file and entry point is the program; the same program gives the same bytes."""
    layer = _tar({program.name: program.read_bytes()}, mode=0o755)
    config = {
        "architecture": "amd64",
        "os": "linux",
        "config": {"Entrypoint": [f"/{program.name}"], "User": "65532:65532"},
        "rootfs": {"type": "layers", "diff_ids": [digest(layer)]},
    }
    blobs = {digest(blob): blob for blob in (layer, _json(config))}
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": _descriptor("application/vnd.oci.image.config.v1+json", _json(config)),
            "layers": [_descriptor("application/vnd.oci.image.layer.v1.tar", layer)],
        }
    )
    blobs[digest(manifest)] = manifest
    pack(file, image, _descriptor("application/vnd.oci.image.manifest.v1+json", manifest), blobs)


def pack(file: Path, image: str, entry: dict[str, Any], blobs: dict[str, bytes]) -> None:
    """An archive of one image from the descriptor of its manifest and the blobs that are to be in it, by digest."""
    index = {
        "schemaVersion": 2,
        "manifests": [{**entry, "annotations": {"io.containerd.image.name": image}}],
    }
    files = {"oci-layout": _json({"imageLayoutVersion": "1.0.0"}), "index.json": _json(index)}
    files |= {f"blobs/{digest.replace(':', '/')}": blob for digest, blob in blobs.items()}
    file.write_bytes(_tar(files, mode=0o644))


def _tar(files: dict[str, bytes], mode: int) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), mode
            tar.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def _json(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True).encode()


def digest(blob: bytes) -> str:
    return f"sha256:{hashlib.sha256(blob).hexdigest()}"


def _descriptor(kind: str, blob: bytes) -> dict[str, Any]:
    return {"mediaType": kind, "digest": digest(blob), "size": len(blob)}
