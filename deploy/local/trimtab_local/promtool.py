"""promtool, which checks and tests the alerts: out of Debian's package, without installing a server.

Kept in the cache by the package's version; what is there, or on the PATH, is taken without asking apt.
"""

import os
import shutil
import tempfile
from pathlib import Path

from trimtab_local.binaries import lock
from trimtab_local.instance import cache
from trimtab_local.progress import Failed, watch

PACKAGE = "prometheus"


def ensure() -> Path:
    """The program: the machine's own, else that of the package, unpacked once."""
    here = shutil.which("promtool")
    if here:
        return Path(here)
    with lock(cache() / "promtool.lock"):
        return _kept() or _unpack()


def _kept() -> Path | None:
    return max(cache().glob(f"{PACKAGE}-*/promtool"), default=None, key=lambda file: file.stat().st_mtime)


def _unpack() -> Path:
    if not shutil.which("apt-get"):
        raise Failed("please install promtool, of Prometheus: only apt is known to this program")
    with tempfile.TemporaryDirectory(dir=cache()) as work:
        package = _download(Path(work))
        version = package.name.split("_")[1]
        watch(f"unpacking promtool {version}", ["dpkg", "-x", package, Path(work) / "root"])
        fresh = Path(work) / "new"
        fresh.mkdir()
        (Path(work) / "root/usr/bin/promtool").rename(fresh / "promtool")
        fresh.rename(cache() / f"{PACKAGE}-{version}")
    return cache() / f"{PACKAGE}-{version}" / "promtool"


def _download(folder: Path) -> Path:
    """The package's file; a fresh machine has no lists yet, and old lists name files that are gone."""
    command = ["apt-get", "download", PACKAGE]
    try:
        watch(f"apt-get download {PACKAGE}", command, folder=folder)
    except Failed:
        watch("apt-get update", ["apt-get", "update"], {**os.environ, "DEBIAN_FRONTEND": "noninteractive"})
        watch(f"apt-get download {PACKAGE}", command, folder=folder)
    return next(folder.glob(f"{PACKAGE}_*.deb"))
