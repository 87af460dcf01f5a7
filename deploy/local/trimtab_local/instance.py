"""One local cluster's number and everything that follows from it: addresses, names and folders.

All addresses are from 198.18.0.0/15, the range reserved for tests, so that nothing real can be meant by them.
"""

import os
from dataclasses import dataclass
from pathlib import Path

from trimtab_local.progress import Failed

CGROUPS = Path("/sys/fs/cgroup")
PARENT = "TRIMTAB_CGROUP"
"""Variable that names the cgroup in which a cluster's is made; the root if unset."""


def hierarchies() -> list[Path]:
    """Return where the machine's cgroups are: one folder in cgroup v2, one a controller in v1."""
    if (CGROUPS / "cgroup.controllers").exists():
        return [CGROUPS]
    folders = (path for path in CGROUPS.iterdir() if path.is_dir() and not path.is_symlink())
    return [path for path in folders if path.name != "unified"]


def cache() -> Path:
    """The folder for all that is built or kept: outside the tree, shared by all clusters of this machine."""
    return Path(os.environ.get("TRIMTAB_CACHE") or Path.home() / ".cache" / "trimtab").absolute()


@dataclass(frozen=True)
class Instance:
    number: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.number <= 99:
            raise Failed(f"a cluster's name is a number from 1 to 99, not {self.number}")

    @property
    def name(self) -> str:
        """Of the network interface and the cgroup: what a look at the host shows of this cluster."""
        return f"trimtab{self.number}"

    @property
    def parent_cgroup(self) -> str:
        return os.environ.get(PARENT, "")

    @property
    def cgroup(self) -> str:
        """Path of the cgroup of all pods, below the root of its hierarchy."""
        return str(Path(self.parent_cgroup, self.name))

    @property
    def node(self) -> str:
        return f"node{self.number}"

    @property
    def host_address(self) -> str:
        return f"198.18.{self.number}.1"

    @property
    def address(self) -> str:
        return f"198.18.{self.number}.2"

    @property
    def pods(self) -> str:
        return f"198.18.{100 + self.number}.0/24"

    @property
    def services(self) -> str:
        return f"198.19.{self.number}.0/24"

    @property
    def first_service(self) -> str:
        return f"198.19.{self.number}.1"

    @property
    def dns(self) -> str:
        return f"198.19.{self.number}.10"

    @property
    def api(self) -> str:
        return f"https://{self.address}:6443"

    @property
    def folder(self) -> Path:
        """State of the running cluster; removed by `down`."""
        return cache() / "clusters" / str(self.number)

    @property
    def images(self) -> Path:
        """containerd's store; kept, so that an image is imported once."""
        return cache() / "containerd" / str(self.number)

    @property
    def kubeconfig(self) -> Path:
        return self.folder / "admin.kubeconfig"

    @property
    def kubectl(self) -> Path:
        """A kubectl of this cluster, which needs no PATH and no KUBECONFIG."""
        return self.folder / "kubectl"

    @property
    def socket(self) -> Path:
        return self.folder / "containerd.sock"
