import json
import re
import tarfile
from pathlib import Path
from types import SimpleNamespace

import pytest
from trimtab_local import images


@pytest.fixture
def tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with just enough in it to build the prepare image."""
    for file in ("deploy/images/Containerfile.prepare", "deploy/images/tools.txt", "requirements/prepare.txt"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(file)
    (tmp_path / ".dockerignore").write_text("*\n")
    (tmp_path / "trainer" / "src").mkdir(parents=True)
    (tmp_path / "trainer" / "src" / "loop.py").write_text("pass\n")
    monkeypatch.setattr(images, "ROOT", tmp_path)
    return tmp_path


CHANGES = {
    "the sources": ("trainer/src/loop.py", True),
    "a new module": ("trainer/src/new.py", True),
    "the locked versions": ("requirements/prepare.txt", True),
    "the Containerfile": ("deploy/images/Containerfile.prepare", True),
    "another image's locked versions": ("requirements/operator.txt", False),
    "compiled sources": ("trainer/src/__pycache__/loop.pyc", False),
}


@pytest.mark.parametrize("change", CHANGES)
def test_the_tag_follows_what_goes_into_the_image(tree: Path, change: str) -> None:
    file, want_new = CHANGES[change]
    before = images.tag("prepare")
    (tree / file).parent.mkdir(exist_ok=True)
    (tree / file).write_text("changed")
    assert (images.tag("prepare") != before) is want_new
    assert re.fullmatch("[0-9a-f]{12}", before)


def test_every_containerfile_copies_only_what_its_tag_covers() -> None:
    for name, inputs in images.INPUTS.items():
        text = (images.ROOT / images.FOLDER / f"Containerfile.{name}").read_text()
        lines = re.findall(r"^COPY (?!--from)(.+) \S+$", text, re.MULTILINE)
        copied = {file for line in lines for file in line.split()}
        assert sorted(copied) == sorted(inputs), name


def test_the_engine_of_the_tests_builds_on_the_trainers_layers() -> None:
    trainer, engine = (
        (images.ROOT / images.FOLDER / f"Containerfile.{name}").read_text() for name in ("trainer", "vllm-cpu")
    )
    steps = [step.strip() for step in re.split(r"\n(?=FROM |ARG |COPY |RUN |#)", engine) if not step.startswith("#")]
    own = next(place for place, step in enumerate(steps) if "vllm-cpu.txt" in step)
    assert len(steps[:own]) >= 5
    assert all(step in trainer for step in steps[:own]), "the same words are the same layers, built and sent once"
    assert images.INPUTS["vllm-cpu"][:2] == images.INPUTS["trainer"][:2]


def test_no_containerfile_names_a_registry_or_an_index() -> None:
    for file in (path for path in (images.ROOT / images.FOLDER).rglob("*") if path.is_file()):
        text = file.read_text()
        assert not re.search(r"https?://|--index|--extra-index", text), file
        for image in re.findall(r"^FROM (\S+)", text, re.MULTILINE):
            assert "/" not in image, f"{file}: {image} is no short name"


class Node:
    """A cluster of which only the store of its containerd is looked at."""

    def __init__(self, folder: Path, known: set[str]) -> None:
        self.instance = SimpleNamespace(images=folder)
        self.known = known
        self.ingested: list[tuple[str, ...]] = []

    def ctr(self, *arguments: str, stdin: Path | None = None) -> str:
        if arguments[:2] == ("content", "ls"):
            return "\n".join(self.known)
        assert stdin is not None
        self.ingested.append((*arguments[2:6], stdin.read_text()))
        return ""


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    folder = tmp_path / "layout"
    (folder / "blobs" / "sha256").mkdir(parents=True)
    layers = [{"digest": f"sha256:{name}", "size": size} for name, size in (("big", 1000), ("cut", 3), ("small", 1))]
    manifest = {"config": {"digest": "sha256:c"}, "layers": layers}
    for name, text in {"m": json.dumps(manifest), "c": "{}", "big": "x" * 1000, "cut": "cut", "small": "y"}.items():
        (folder / "blobs" / "sha256" / name).write_text(text)
    return folder


ENTRY = {"digest": "sha256:m", "size": 1, "mediaType": "x"}


def test_only_layers_that_the_node_does_not_know_are_linked_into_its_store(layout: Path, tmp_path: Path) -> None:
    node = Node(tmp_path / "images", {"sha256:big"})
    store = tmp_path / "images" / "io.containerd.content.v1.content" / "blobs" / "sha256"
    store.mkdir(parents=True)
    (store / "cut").hardlink_to(layout / "blobs" / "sha256" / "cut")  # linked, then stopped before it was entered

    assert images._link_layers(node, layout, ENTRY) == 4  # type: ignore[arg-type]
    linked = {"cut": "cut", "small": "y"}
    want = [
        ("--expected-digest", f"sha256:{name}", "--expected-size", str(len(text)), text)
        for name, text in linked.items()
    ]
    assert node.ingested == want
    assert sorted(path.name for path in store.iterdir()) == ["cut", "small"]
    assert (store / "small").samefile(layout / "blobs" / "sha256" / "small")


def test_the_archive_of_an_image_has_no_layers(layout: Path, tmp_path: Path) -> None:
    images._write_archive(tmp_path / "a.tar", layout, ENTRY, "docker.io/trimtab/trainer:1")
    with tarfile.open(tmp_path / "a.tar") as tar:
        assert tar.getnames() == ["oci-layout", "index.json", "blobs/sha256/c", "blobs/sha256/m"]
        index = tar.extractfile("index.json")
        assert index is not None
        names = [entry["annotations"]["io.containerd.image.name"] for entry in json.load(index)["manifests"]]
    assert names == ["docker.io/trimtab/trainer:1"]
