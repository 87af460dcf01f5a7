"""Start, use and stop one cluster. The node is one process number, mount and network namespace, so stopping it is
ending its process 1; only a network interface, two routes, the cgroups and a folder are outside of it."""

import json
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

from trimtab_local import archive, binaries, node, pki, toolchain
from trimtab_local.instance import CGROUPS, Instance, cache, hierarchies
from trimtab_local.progress import Failed, Word, run, say

LOG_LINES = 15
KUBECTL = """\
#!/bin/sh
exec '{program}' --kubeconfig '{kubeconfig}' "$@"
"""


class Cluster:
    """`name` is a small number: clusters with different numbers run side by side and share nothing but binaries.

    control_plane=True: etcd, API server and controller manager only, up in seconds.
    """

    def __init__(self, name: int = 1, control_plane: bool = False, gpus: int = 8) -> None:
        self.instance = Instance(name)
        self.control_plane = control_plane
        self.gpus = gpus

    @property
    def kubeconfig(self) -> Path:
        return self.instance.kubeconfig

    def __enter__(self) -> Self:
        self.up()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.down()

    def up(self) -> Path:
        """Start it, or leave it as it is when it runs; return the kubeconfig."""
        toolchain.require_root()
        with binaries.lock(cache() / "clusters" / f"{self.instance.number}.lock"):
            mode = self.mode()
            wanted = "control-plane" if self.control_plane else "node"
            if mode == wanted and self._ready():
                say(f"cluster {self.instance.number} runs already")
                return self.kubeconfig
            if mode and mode != wanted:
                raise Failed(f"cluster {self.instance.number} runs as {mode}: take it down, or use another number")
            toolchain.install(toolchain.PACKAGES)
            programs = binaries.ensure(binaries.CONTROL_PLANE) if self.control_plane else binaries.ensure()
            self._stop()  # what a dead one has left
            try:
                self._start(programs)
            except BaseException:  # Ctrl-C too leaves nothing behind
                self._show_logs()
                self._stop(keep_folder=True)
                raise
        return self.kubeconfig

    def down(self) -> None:
        """Stop it and check that nothing is left on the host but the images."""
        toolchain.require_root()
        with binaries.lock(cache() / "clusters" / f"{self.instance.number}.lock"):
            self._stop()
            say(f"cluster {self.instance.number} is down, nothing is left of it")

    def mode(self) -> str | None:
        """`control-plane` or `node` while it runs, else None."""
        file = self.instance.folder / "mode"
        return file.read_text() if self.pid() and file.exists() else None

    def pid(self) -> int | None:
        """The node's process 1, as the host counts; None when it does not run."""
        try:
            recorded = (self.instance.folder / "pid1").read_text().split()
            current = Path("/proc", recorded[0], "stat").read_text().split()
        except (OSError, IndexError):
            return None
        started, state = 21, 2  # fields of proc(5); the same number started at another time is another process
        return int(recorded[0]) if current[started] == recorded[started] and current[state] != "Z" else None

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        return run([self.program("kubectl"), "--kubeconfig", self.kubeconfig, *arguments], stdin=stdin)

    def program(self, name: str) -> Path:
        """A program of the build that this cluster was started with."""
        return (self.instance.folder / "bin").resolve() / name

    def enter(self, *command: str) -> list[str]:
        """The command line that runs a command inside the node's namespaces."""
        pid = self.pid()
        if not pid:
            raise Failed(f"cluster {self.instance.number} does not run")
        return ["nsenter", "--target", str(pid), "--mount", "--pid", "--net", "--", *command]

    def signal(self, component: str, name: str) -> None:
        """Send a signal to a component of the node, for example ("kube-controller-manager", "KILL")."""
        number = (self.instance.folder / "log" / f"{component}.pid").read_text().strip()
        run(self.enter("/bin/kill", f"-{name}", number))

    def kubelet(self, action: Literal["stop", "continue"]) -> None:
        """Freeze the kubelet, so that the node is lost to the cluster while its containers go on; or thaw it."""
        self.signal("kubelet", "STOP" if action == "stop" else "CONT")

    def load(self, *images: str) -> None:
        """Put images made by `images` (or any other in its image store) into the node."""
        from trimtab_local import images as builder

        if self.mode() != "node":
            raise Failed(f"cluster {self.instance.number} has no node to load an image into")
        for image in images:
            builder.load(self, image)

    # -- start ---------------------------------------------------------------------------------------------------

    def _start(self, programs: Path) -> None:
        instance = self.instance
        if len(str(instance.socket)) > 100:
            raise Failed(f"{instance.socket} is too long for a socket: set TRIMTAB_CACHE to a shorter folder")
        if instance.folder.exists():
            shutil.rmtree(instance.folder)
        instance.folder.mkdir(parents=True, mode=0o755)
        instance.images.mkdir(parents=True, exist_ok=True)
        (instance.folder / "mode").write_text("control-plane" if self.control_plane else "node")
        (instance.folder / "bin").symlink_to(programs)
        instance.kubectl.write_text(KUBECTL.format(program=programs / "kubectl", kubeconfig=self.kubeconfig))
        instance.kubectl.chmod(0o755)
        pki.make(instance)
        (instance.folder / "authentication.yaml").write_text(node.AUTHENTICATION)
        if not self.control_plane:
            node.write(instance, self._image("pause"))
            self._make_cgroups()
        self._unshare(programs)
        self._connect()
        say("control plane starting")
        if not self.control_plane:
            self._wait("containerd", instance.socket.exists, 30)
            for name in ("pause", "coredns"):
                self._import_own(name)
        self._wait("the API server", (instance.folder / "started").exists, 120)
        if self.control_plane:
            self._wait("the default service account", self._has("serviceaccount", "default"), 30)
        else:
            self._fill()
        say(f"cluster {instance.number} is up: export KUBECONFIG={self.kubeconfig}")

    def _unshare(self, programs: Path) -> None:
        namespaces = ["--mount", "--pid", "--net", "--fork", "--propagation", "slave"]
        command = ["setsid", "--fork", "unshare", *namespaces, "/bin/bash", str(node.SCRIPT)]
        environment = {**os.environ, **node.environment(self.instance, programs, self.control_plane)}
        with (self.instance.folder / "node.log").open("w") as log:
            # the node may stay when this process ends: it gets none of its files
            subprocess.run(command, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, check=True)
        until(lambda: self.pid() is not None, "the node's first process", 10, every=0.01)

    def _connect(self) -> None:
        """A cable between host and node, and routes to services and pods, so that the host can use their addresses."""
        here = self.instance
        run(["ip", "link", "add", here.name, "type", "veth", "peer", "name", "n0", "netns", str(self.pid())])
        run(["ip", "address", "add", f"{here.host_address}/30", "dev", here.name])
        run(["ip", "link", "set", here.name, "up"])
        for target in (here.services, here.pods):
            run(["ip", "route", "replace", target, "via", here.address])

    def _fill(self) -> None:
        """Everything that is inside a fresh cluster, and the wait until it is ready."""
        here = self.instance
        manifest = node.MANIFEST.read_text().replace("@IMAGE@", self._image("coredns")).replace("@DNS@", here.dns)
        self.kubectl("apply", "-f", "-", stdin=manifest)
        self._wait("the node", self._has("node", here.node), 60)
        self.kubectl("wait", "--for=condition=Ready", f"node/{here.node}", "--timeout=90s")
        say("node Ready")
        # No device plugin: the scheduler counts what the status says, and the kubelet admits it.
        resource = "nvidia.com~1gpu"
        patch = [
            {"op": "add", "path": f"/status/{kind}/{resource}", "value": str(self.gpus)}
            for kind in ("capacity", "allocatable")
        ]
        self.kubectl("patch", "node", here.node, "--subresource=status", "--type=json", "-p", json.dumps(patch))
        self._wait("the default service account", self._has("serviceaccount", "default"), 30)
        self.kubectl("rollout", "status", "deployment/coredns", "--namespace=kube-system", "--timeout=90s")

    def _image(self, name: str) -> str:
        return f"docker.io/trimtab-local/{name}:{self.program(name).parent.name}"

    def _import_own(self, name: str) -> None:
        image = self._image(name)
        if image in self.ctr("images", "ls", "-q").split():
            return
        file = self.instance.folder / f"{name}.tar"
        archive.write(file, image, self.program(name))
        self.ctr("images", "import", str(file))
        file.unlink()

    def ctr(self, *arguments: Word, stdin: Path | None = None) -> str:
        return run([self.program("ctr"), "-a", self.instance.socket, "-n", "k8s.io", *arguments], stdin=stdin)

    def _has(self, kind: str, name: str) -> Callable[[], bool]:
        return lambda: bool(self.kubectl("get", kind, name, "--ignore-not-found", "-o", "name"))

    def _ready(self) -> bool:
        try:
            return (self.instance.folder / "started").exists() and self.kubectl("get", "--raw", "/readyz") == "ok"
        except Failed:
            return False

    def _wait(self, what: str, true: Callable[[], bool], seconds: float) -> None:
        """Like until(), but a dead node ends the wait."""

        def alive_and_true() -> bool:
            if self.pid() is None:
                raise Failed("the node died")
            return true()

        until(alive_and_true, what, seconds)

    def _make_cgroups(self) -> None:
        """The cluster's cgroup in every hierarchy."""
        for hierarchy in hierarchies():
            folder = hierarchy
            for part in Path(self.instance.cgroup).parts:
                folder /= part
                folder.mkdir(exist_ok=True)
                for file in ("cpuset.cpus", "cpuset.mems"):  # in cgroup v1 an empty cpuset refuses every process
                    if hierarchy.name == "cpuset":
                        (folder / file).write_text((hierarchy / file).read_text())

    def _show_logs(self) -> None:
        for log in sorted([self.instance.folder / "node.log", *self.instance.folder.glob("log/*.log")]):
            lines = log.read_text(errors="replace").splitlines() if log.exists() else []
            if lines:
                say(f"end of {log}:\n" + "\n".join(f"    {line[:300]}" for line in lines[-LOG_LINES:]))

    # -- stop ----------------------------------------------------------------------------------------------------

    def _stop(self, keep_folder: bool = False) -> None:
        pid = self.pid()
        space = _pid_namespace(pid) if pid else None
        if pid:
            os.kill(pid, signal.SIGKILL)
            until(lambda: self.pid() is None, "the end of the node's first process", 30, every=0.01)
        if space:
            until(lambda: not _processes_in(space), "the end of the node's processes", 30)
        interface = Path("/sys/class/net", self.instance.name)
        if interface.exists():
            try:
                run(["ip", "link", "delete", self.instance.name])
            except Failed:  # the kernel takes it away with the network of its other end, maybe right now
                if interface.exists():
                    raise
        until(lambda: remove_cgroups(self.instance.cgroup), "the end of the node's cgroups", 30)
        if not keep_folder and self.instance.folder.exists():
            shutil.rmtree(self.instance.folder)
        left = self._left()
        if left:
            raise Failed(f"cluster {self.instance.number} left something behind:\n" + "\n".join(left))

    def _left(self) -> list[str]:
        """Every trace on the host, looked for where it would be, not where this program put it."""
        here = self.instance
        words = (f"{here.name} ", f"{here.address} ", here.services, here.pods, f"{here.folder}/")
        found = [f"cgroup {path}" for path in cgroups(here.cgroup)]
        looks = {
            "interface": ["ip", "-oneline", "link"],
            "route": ["ip", "route", "show", "table", "all"],
            "mount": ["cat", "/proc/self/mounts"],
            "firewall rule": ["iptables-save"],
        }
        for kind, command in looks.items():
            if shutil.which(command[0]):
                lines = run(command).splitlines()
                found += [f"{kind} {line.strip()}" for line in lines if any(word in f"{line} " for word in words)]
        return found


def cgroups(name: str) -> list[Path]:
    """Return what there is of a cgroup, also in hierarchies where only the container runtime made one."""
    return [path for pattern in ("", "*/") for path in CGROUPS.glob(f"{pattern}{name}")]


def remove_cgroups(name: str) -> bool:
    """Remove a cgroup and those in it; tell whether nothing is left of them."""
    for top in cgroups(name):
        for folder, _, _ in os.walk(top, topdown=False):
            try:
                Path(folder).rmdir()
            except OSError:  # busy until the kernel has taken the last task out
                return False
    return True


def until(true: Callable[[], bool], what: str, seconds: float, every: float = 0.1) -> None:
    end = time.monotonic() + seconds
    while not true():
        if time.monotonic() > end:
            raise Failed(f"waited {seconds:.0f} s for {what}")
        time.sleep(every)


def _pid_namespace(pid: int) -> str:
    return str(Path("/proc", str(pid), "ns", "pid").readlink())


def _processes_in(space: str) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                if _pid_namespace(int(entry.name)) == space:
                    found.append(int(entry.name))
            except OSError:  # it ended while we looked, or is a zombie
                continue
    return found
