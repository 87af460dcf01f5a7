import json
import os
import re
from pathlib import Path
from types import SimpleNamespace

import pytest
from trimtab_local import archive, images
from trimtab_local.progress import Failed, Word, run


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


def test_an_image_that_is_made_from_another_has_its_name_as_an_argument() -> None:
    for name, (base, argument) in images.BASES.items():
        text = (images.ROOT / images.FOLDER / f"Containerfile.{name}").read_text()
        assert base in images.INPUTS
        assert re.search(rf"^ARG {argument}\n(.*\n)*FROM \${argument}$", text, re.MULTILINE), name


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


NAME = "docker.io/trimtab/trainer:1"
LOW, TOP = (archive.digest(text) for text in (b"low", b"top"))


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A builder's store with an image of two layers, and one of which nothing is asked."""
    monkeypatch.setenv("TRIMTAB_CACHE", str(tmp_path))
    folder = tmp_path / "buildah" / "store"
    for kind in ("overlay-layers", "overlay-images", "overlay/a/diff", "overlay/b/diff/etc"):
        (folder / kind).mkdir(parents=True)
    (folder / "overlay/b/diff/etc/os").write_text("a system")
    layers = [{"id": "b", "parent": "a", "diff-digest": TOP}, {"id": "a", "diff-digest": LOW}]
    (folder / "overlay-layers" / "layers.json").write_text(json.dumps(layers))
    made = [{"layer": "a", "names": None}, {"layer": "b", "names": [NAME]}]
    (folder / "overlay-images" / "images.json").write_text(json.dumps(made))
    return folder


def test_the_layers_of_an_image_have_the_names_of_their_snapshots(store: Path) -> None:
    chain = archive.digest(f"{LOW} {TOP}".encode())
    want = [(LOW, store / "overlay" / "a" / "diff"), (chain, store / "overlay" / "b" / "diff")]
    assert images._layers(NAME, [LOW, TOP]) == want
    with pytest.raises(Failed, match="not those of its configuration"):
        images._layers(NAME, [TOP, LOW])


class Node:
    """A cluster of which only the snapshots are looked at."""

    def __init__(self, folder: Path, *snapshots: str) -> None:
        self.folder = folder
        self.instance = SimpleNamespace(folder=folder, number=1)
        self.snapshots = list(snapshots)
        self.called: list[tuple[str, ...]] = []

    def ctr(self, *arguments: str) -> str:
        self.called.append(arguments)
        match arguments:
            case ("snapshots", "ls"):
                return "\n".join(["KEY PARENT KIND", *(f"{name}  Committed" for name in self.snapshots)])
            case ("snapshots", "prepare", "--mounts", _):
                return json.dumps([{"Type": "bind", "Source": str(self.folder), "Options": ["rw", "rbind"]}])
            case ("snapshots", "prepare", "--mounts", _, _):
                return json.dumps([{"Source": "overlay", "Options": ["index=off", f"upperdir={self.folder}"]}])
        return ""


@pytest.mark.parametrize("parent", ["", LOW], ids=["lowest", "on another"])
def test_a_snapshot_is_made_of_the_builders_files(
    store: Path, tmp_path: Path, parent: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = ["cp", "--archive", "--link"]  # a mount namespace needs root
    monkeypatch.setattr(images, "hard_links", lambda source, target: [*copy, f"{source}/.", target])
    folder = tmp_path / "fs"
    folder.mkdir()
    node = Node(folder, images.LINKING)  # an earlier try was cut short
    source = store / "overlay" / "b" / "diff"
    images._link(node, TOP, parent, source)  # type: ignore[arg-type]
    assert (folder / "etc" / "os").samefile(source / "etc" / "os")
    assert ("snapshots", "rm", images.LINKING) in node.called
    assert node.called[-1] == ("snapshots", "commit", TOP, images.LINKING)


def test_an_image_is_entered_when_all_its_layers_are_there(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = {"mediaType": "application/vnd.oci.image.manifest.v1+json"}
    told = {"Manifest": json.dumps(manifest), "Config": json.dumps({"rootfs": {"diff_ids": [LOW, TOP]}})}
    monkeypatch.setattr(images, "run", lambda command, environment=None: json.dumps(told))
    node = Node(tmp_path)
    images.load(node, NAME)  # type: ignore[arg-type]
    assert [call[:2] for call in node.called if call[1] in ("commit", "import")] == [
        ("snapshots", "commit"),
        ("snapshots", "commit"),
        ("images", "import"),
    ]


def test_a_snapshot_that_is_there_is_not_made_again(store: Path, tmp_path: Path) -> None:
    node = Node(tmp_path, TOP)
    images._link(node, TOP, LOW, store)  # type: ignore[arg-type]
    assert node.called == [("snapshots", "ls")]


@pytest.mark.skipif(os.geteuid() != 0, reason="mounts need root")
def test_links_lead_out_of_a_store_that_is_mounted_on_itself(store: Path, tmp_path: Path) -> None:
    source, target = store / "overlay" / "b" / "diff", tmp_path / "fs"
    target.mkdir()
    script = 'mount --bind "$0" "$0" && exec "$@"'
    around: list[Word] = ["unshare", "--mount", "--propagation", "private", "/bin/sh", "-c", script, store / "overlay"]
    with pytest.raises(Failed, match="cross-device"):
        run([*around, "cp", "--archive", "--link", f"{source}/.", target])
    run([*around, *images.hard_links(source, target)])
    assert (target / "etc" / "os").samefile(source / "etc" / "os")


def test_what_tells_the_builder_its_store_is_never_empty_while_another_builder_reads_it(store: Path) -> None:
    config = Path(images.environment()["CONTAINERS_STORAGE_CONF"])
    text, found = config.read_text(), config.stat()
    images.environment()
    assert (config.stat().st_ino, config.stat().st_mtime_ns) == (found.st_ino, found.st_mtime_ns)
    config.write_text("")
    opened = config.open()  # what another one has begun to read stays as it is
    images.environment()
    assert (config.read_text(), opened.read()) == (text, "")
    assert [each.name for each in config.parent.iterdir() if each.is_file()] == ["storage.conf"]
