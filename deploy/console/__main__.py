"""Bring the console's vendored files up to `vendored.json`: `make vendor-console`. Versions are changed there, by hand.

npm checks what it downloads against its registry; the sha256 of every file is written beside its version, and a test
compares them. Nothing of this happens when the console is installed or runs.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Any

ASSETS = Path(__file__).parents[2] / "cli/src/trimtab/console/assets"
LOCK = ASSETS / "vendored.json"
LICENSES = ("LICENSE", "LICENSE.md", "LICENSE.txt")


def main() -> None:
    """Download the packages, copy the files, write their hashes."""
    entries: list[dict[str, Any]] = json.loads(LOCK.read_text())
    texts: dict[str, str] = {}
    for entry in entries:
        name = f"{entry['package']}@{entry['version']}"
        with tempfile.TemporaryDirectory() as folder:
            packed = subprocess.run(
                ["npm", "pack", "--json", name], cwd=folder, check=True, capture_output=True, text=True
            )
            told = json.loads(packed.stdout)
            first = told[0] if isinstance(told, list) else next(iter(told.values()))
            with tarfile.open(Path(folder) / first["filename"]) as archive:
                data = _member(archive, entry["from"])
                licenses = [member for member in LICENSES if f"package/{member}" in archive.getnames()]
                texts[name] = _member(archive, licenses[0]).decode() if licenses else ""
        (ASSETS / "vendor" / entry["to"]).write_bytes(data)
        entry["integrity"] = first["integrity"]
        entry["sha256"] = hashlib.sha256(data).hexdigest()
    missing = [name for name, text in texts.items() if not text]
    if missing:
        raise SystemExit(f"no license in {', '.join(missing)}")
    (ASSETS / "vendor" / "LICENSES").write_text(
        "\n".join(f"==== {name}\n\n{text.strip()}\n" for name, text in texts.items())
    )
    LOCK.write_text(json.dumps(entries, indent=1) + "\n")


def _member(archive: tarfile.TarFile, path: str) -> bytes:
    opened = archive.extractfile(f"package/{path}")
    if opened is None:
        raise SystemExit(f"{path} is no file")
    return opened.read()


if __name__ == "__main__":
    main()
