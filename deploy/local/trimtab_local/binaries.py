"""Go programs, compiled once per content of their module and version of Go.

Those of the cluster are of one module, so one compile cache serves all: etcd and Kubernetes in one binary, containerd
with its shim and ctr, CoreDNS, pause and helm.
"""

import fcntl
import hashlib
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from trimtab_local import toolchain
from trimtab_local.instance import cache
from trimtab_local.progress import Word, run, say, watch

KUBERNETES = "v1.36.2"
CONTAINERD = "github.com/containerd/containerd/v2/cmd"
PACKAGES = {
    "node": "./cmd/node",
    "pause": "./cmd/pause",
    "containerd": f"{CONTAINERD}/containerd",
    "containerd-shim-runc-v2": f"{CONTAINERD}/containerd-shim-runc-v2",
    "ctr": f"{CONTAINERD}/ctr",
    "coredns": "./cmd/coredns",
    "helm": "helm.sh/helm/v4/cmd/helm",
}
COMPONENTS = (  # each a link to `node`
    "etcd",
    "kube-apiserver",
    "kube-controller-manager",
    "kube-scheduler",
    "kubelet",
    "kube-proxy",
    "kube-network-policies",
    "kubectl",
)
FLAGS = ("-gcflags=all=-dwarf=false",)
"""No debug tables, which the linker would leave out anyway: a seventh of the compiling (traces need none)."""
CONTROL_PLANE = ("node",)


@dataclass(frozen=True)
class Module:
    """A Go module of which programs are made.

    Attributes:
        packages: program -> the package that it is compiled from.
        links: other names of the first program.
    """

    folder: Path
    packages: Mapping[str, str]
    linker_flags: str = "-s -w"
    links: Sequence[str] = ()


def _linker_flags() -> str:
    """With the version that a release build of Kubernetes would report."""
    _, minor, _ = KUBERNETES.split(".")
    stamp = {"gitVersion": KUBERNETES, "gitMajor": "1", "gitMinor": minor, "gitTreeState": "clean"}
    packages = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version", "k8s.io/kubectl/pkg/version")
    return " ".join(["-s -w", *(f"-X {p}.{key}={value}" for p in packages for key, value in stamp.items())])


CLUSTER = Module(Path(__file__).parent.parent / "go", PACKAGES, _linker_flags(), COMPONENTS)


def ensure(names: Sequence[str] = (), module: Module = CLUSTER) -> Path:
    """Build what is missing of the named programs, of all if none is named; return the folder that has them."""
    go = toolchain.go(module.folder)
    folder = cache() / "bin" / _key(go, module)
    with lock(folder.with_suffix(".lock")):  # two clusters started at once: one builds, the other waits
        folder.mkdir(parents=True, exist_ok=True)
        missing = [name for name in names or module.packages if not (folder / name).exists()]
        if missing:
            say(f"building {', '.join(missing)}; the first time on a machine takes minutes")
            _build(go, module, missing, folder)
        for link in module.links:
            if not (folder / link).is_symlink():
                (folder / link).symlink_to(next(iter(module.packages)))
    return folder


@contextmanager
def lock(file: Path) -> Iterator[None]:
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as handle:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another process that holds {file}")
            fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _build(go: Path, module: Module, names: Sequence[str], folder: Path) -> None:
    """Compile programs in one go: while one core links a program, the other compiles the next."""
    environment = {**os.environ, "CGO_ENABLED": "0", "GOFLAGS": "-buildvcs=false", "GOTOOLCHAIN": "local"}
    with tempfile.TemporaryDirectory(dir=folder) as fresh:
        command: list[Word] = [go, "build", "-v", "-trimpath", *FLAGS, "-ldflags", module.linker_flags]
        command += ["-o", f"{fresh}/", *(module.packages[name] for name in names)]
        watch("compiling", command, environment, module.folder)
        for name in names:
            Path(fresh, name).rename(folder / name)


def _key(go: Path, module: Module) -> str:
    digest = hashlib.sha256(run([go, "env", "GOVERSION", "GOARCH"]).encode())
    digest.update(f"{FLAGS} {module.linker_flags} {module.packages}".encode())
    for file in sorted(path for path in module.folder.rglob("*") if path.suffix in {".go", ".mod", ".sum"}):
        digest.update(f"{file.relative_to(module.folder)}\0{file.stat().st_size}\0".encode() + file.read_bytes())
    return digest.hexdigest()[:16]
