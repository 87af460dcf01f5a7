"""The mirror stage against a hub of our own, which the real client talks to: what lies where afterwards, what is never
fetched again, what goes on after a fault, and by what name everything else ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import constants
from trimtab_trainer.__main__ import main
from trimtab_trainer.config import at_the_mirror
from trimtab_trainer.contract import (
    Credentials,
    EvaluationConfig,
    ExitCode,
    Mirrored,
    Reason,
    RunConfig,
    Stage,
    TerminationMessage,
)
from trimtab_trainer.contract.evaluation import EVALUATION_VERSION
from trimtab_trainer.data.reading.source import find
from trimtab_trainer.errors import HubFailed, SettingsInvalid, TrainerError
from trimtab_trainer.hub import client
from trimtab_trainer.hub.mirror import mirror
from trimtab_trainer.hub.notes import check_there
from trimtab_trainer.prepare import prepare
from trimtab_trainer.progress import ProgressBoard
from trimtab_trainer.report import Report
from trimtab_trainer.storage import MANIFEST, ObjectMissing, Store, open_store, read_manifest, verify

from tests.trainer.conftest import ObjectStorage
from tests.trainer.hub.models import SHARDS, sharded
from tests.trainer.hub.server import Asked, Hub, running
from tests.trainer.tiny import tiny_rows, write_rows

MODEL, ROWS = "models/tiny/llama", "datasets/tiny/rows"


@dataclass
class Scene:
    """A hub with a model and rows, and a run that wants them."""

    hub: Hub
    folder: Path
    output: Store
    document: dict[str, Any]
    scratch: int = 0
    commits: dict[str, str] = field(default_factory=dict)

    @property
    def config(self) -> RunConfig:
        return RunConfig.model_validate(self.document)

    def mirror(self, known: Mirrored | None = None) -> Mirrored:
        self.scratch += 1
        scratch = self.folder / f"scratch-{self.scratch}"
        scratch.mkdir()
        board = ProgressBoard("uid", 0, Stage.MIRROR)
        return mirror(self.config, known or Mirrored(), scratch, Report(), board)

    def refused(self) -> TrainerError:
        with pytest.raises(TrainerError) as caught:
            self.mirror()
        return caught.value

    def asked(self, what: Callable[[], object]) -> list[Asked]:
        """Return what the hub is asked while something happens."""
        before = len(self.hub.asked)
        what()
        return self.hub.asked[before:]

    def keys(self, **keys: str) -> None:
        """Write the Secret of both sources."""
        folder = self.folder / "hub-keys"
        folder.mkdir(exist_ok=True)
        for file in folder.iterdir():
            file.unlink()
        for name, value in {"HF_ENDPOINT": self.hub.endpoint, **keys}.items():
            (folder / name).write_text(value + "\n")

    def command(self, *more: str, stage: str = "mirror") -> list[str]:
        file = self.folder / "run.json"
        file.write_text(json.dumps(self.document))
        return [stage, "--config", str(file), "--termination-log", str(self.folder / "last"), *more]

    @property
    def last_words(self) -> TerminationMessage:
        message = TerminationMessage.decode((self.folder / "last").read_text())
        assert message is not None
        return message


def model_files(tiny_model: Path) -> dict[str, bytes]:
    return {
        **{file.name: file.read_bytes() for file in tiny_model.iterdir()},
        "LICENSE": b"Apache License",
        "README.md": b"---\nlicense: apache-2.0\n---\n",
        "pytorch_model.bin": b"\x80\x02 a pickle",
        "modeling_tiny.py": b"import os",
        "onnx/model.safetensors": b"another format",
    }


@pytest.fixture
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """A folder; or S3 for what has `on_both` before it."""
    if getattr(request, "param", "file") == "file":
        return open_store((tmp_path / "store").as_uri(), None)
    storage: ObjectStorage = request.getfixturevalue("object_storage")
    return open_store(storage.uri(), storage.credentials())


on_both = pytest.mark.parametrize("store", ["file", "s3"], indirect=True)


@pytest.fixture
def hub() -> Iterator[Hub]:
    with running(Hub()) as here:
        yield here


@pytest.fixture
def scene(hub: Hub, store: Store, tiny_model: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Scene:
    credentials = None
    if store.uri.startswith("s3:"):
        storage: ObjectStorage = request.getfixturevalue("object_storage")
        credentials = storage.credentials().to_json()
    rows = write_rows(tmp_path / "rows.jsonl", tiny_rows(20)).read_bytes()
    commits = {
        "model": hub.repository(MODEL).commit(model_files(tiny_model)),
        "rows": hub.repository(ROWS).commit({"data/train.jsonl": rows, "README.md": b"rows", "load.py": b"import os"}),
    }
    keys = {"directory": str(tmp_path / "hub-keys"), "secretName": "hub"}
    document = {
        "baseModel": {"uri": "hf://tiny/llama@main", "credentials": keys},
        "dataset": {"training": {"uri": "hf://datasets/tiny/rows@main/data/"}, "credentials": keys},
        "output": {"uri": store.uri, **({"credentials": credentials} if credentials else {})},
        "training": {"maxSequenceLength": 128},
    }
    made = Scene(hub, tmp_path, store, document, commits=commits)
    made.keys()
    return made


@pytest.fixture(autouse=True)
def impatient_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """No second question where a test orders a fault for good."""
    monkeypatch.setattr(client, "ATTEMPTS", 1)


@on_both
def test_what_is_on_a_hub_lies_in_the_output_verified_with_license_and_commit(scene: Scene) -> None:
    found = scene.mirror()
    model, rows = found.sources
    assert (model.commit, model.license) == (scene.commits["model"], "apache-2.0")
    assert rows.commit == scene.commits["rows"]
    prefix = model.location("").removeprefix("/")
    manifest = read_manifest(scene.output, prefix)
    assert manifest is not None
    verify(scene.output, prefix, manifest)
    assert manifest.document["digest"] == model.digest
    assert manifest.document["source"] == {
        "endpoint": scene.hub.endpoint,
        "kind": "model",
        "repository": "tiny/llama",
        "commit": model.commit,
        "license": "apache-2.0",
    }
    papers = {f"source/{model.commit}/{name}" for name in ("LICENSE", "README.md")}
    weights = {"config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    assert {entry.path for entry in manifest.files} == weights | papers
    assert scene.output.read(f"{prefix}/source/{model.commit}/LICENSE") == b"Apache License"
    assert not [each for each in scene.hub.asked if each.path.endswith((".bin", ".py"))]


def test_a_mirror_and_the_same_bytes_elsewhere_are_one_run(scene: Scene, tiny_model: Path) -> None:
    found = scene.mirror()
    here = prepare(at_the_mirror(scene.config, found), scene.folder / "from-mirror", Report())
    rows = scene.hub.repositories[ROWS].commits[scene.commits["rows"]]["data/train.jsonl"]
    (scene.folder / "data").mkdir()
    (scene.folder / "data/train.jsonl").write_bytes(rows)
    document = {
        **scene.document,
        "baseModel": {"uri": tiny_model.as_uri()},
        "dataset": {"training": {"uri": (scene.folder / "data").as_uri() + "/"}},
    }
    there = prepare(RunConfig.model_validate(document), scene.folder / "from-folder", Report())
    assert here.prepared == there.prepared
    assert here.prepared.base_model_digest == found.sources[0].digest


@on_both
def test_rows_of_an_evaluation_are_mirrored_and_those_of_a_run_not_fetched_again(scene: Scene) -> None:
    run = scene.config
    uri, rows = run.dataset.training.uri, scene.mirror().of(run.dataset.training.uri)
    task = {"name": "rows", "type": "Perplexity", "dataset": {"uri": uri}}
    output, keys = scene.document["output"], scene.document["dataset"].get("credentials")
    document = {"version": EVALUATION_VERSION, "output": output, "tasks": [task], "datasetCredentials": keys}
    config = EvaluationConfig.model_validate({**document, "baseModel": {"uri": "s3://models/another"}})
    scratch, found = scene.folder / "scratch-evaluation", list[Mirrored]()
    scratch.mkdir()
    board = ProgressBoard("uid", 0, Stage.MIRROR)
    asked = scene.asked(lambda: found.append(mirror(config, Mirrored(), scratch, Report(), board)))
    assert found[0].sources == (rows,)
    assert not [each for each in asked if "/resolve/" in each.path], "its files are there"
    there = at_the_mirror(config, found[0])
    assert there.dataset_credentials == config.output.credentials
    assert find(there.tasks[0].dataset.uri or "", there.dataset_credentials).files


def test_what_was_mirrored_is_never_fetched_again_by_any_job(scene: Scene) -> None:
    first = scene.mirror()
    scene.document["run"] = {"name": "another", "uid": "another"}
    asked = scene.asked(lambda: scene.mirror())
    assert [each.path for each in asked] == [
        "/api/models/tiny/llama/revision/main",
        "/api/datasets/tiny/rows/revision/main",
    ]
    scene.document["baseModel"]["uri"] = f"hf://tiny/llama@{scene.commits['model']}"
    scene.document["dataset"]["training"]["uri"] = f"hf://datasets/tiny/rows@{scene.commits['rows']}/data/"
    again: list[Mirrored] = []
    assert scene.asked(lambda: again.append(scene.mirror())) == []
    assert [each.digest for each in again[0].sources] == [each.digest for each in first.sources]


def test_a_commit_that_changes_the_readme_alone_fetches_no_weights(scene: Scene, tiny_model: Path) -> None:
    first = scene.mirror().sources[0]
    scene.hub.repositories[MODEL].commit({**model_files(tiny_model), "README.md": b"better words"})
    sent = scene.hub.files_sent()
    second = scene.mirror().sources[0]
    assert (second.digest, second.commit != first.commit) == (first.digest, True)
    assert not [each for each in scene.hub.asked if "x-signature" in each.path and each.path.startswith("/x")]
    assert scene.hub.files_sent() - sent < 20_000


@on_both
def test_a_killed_mirror_goes_on_with_the_file_it_was_at(scene: Scene, tiny_model: Path) -> None:
    files = sharded(tiny_model, scene.folder)
    scene.hub.repositories[MODEL].commit(files)
    order = sorted(SHARDS, key=lambda name: len(files[name]))
    scene.hub.faults.bytes_per_second = 400_000
    process = subprocess.Popen(
        [sys.executable, "-m", "trimtab_trainer", *scene.command("--scratch", str(scene.folder / "killed"))],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if json.loads(line).get("file") == order[0]:
            break
    scene.hub.faults.bytes_per_second = 1_000  # it is not over before it is killed
    deadline = time.monotonic() + 120
    while not (scene.hub.fetching(order[1])) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert scene.hub.fetching(order[1])
    process.send_signal(signal.SIGKILL)
    assert process.wait(30) == -signal.SIGKILL
    assert not [info for info in scene.output.list("models/") if info.path.endswith(MANIFEST)]
    scene.hub.faults.bytes_per_second = None
    asked = scene.asked(lambda: scene.mirror())
    fetched = {Path(each.path.partition("?")[0]).name: each.sent for each in asked if "x-signature" in each.path}
    assert fetched == {order[1]: len(files[order[1]])}
    prefix = scene.mirror().sources[0].location("").removeprefix("/")
    manifest = read_manifest(scene.output, prefix)
    assert manifest is not None
    verify(scene.output, prefix, manifest)


def test_a_connection_that_breaks_goes_on_where_it_broke(scene: Scene, monkeypatch: Any) -> None:
    monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 100_000)  # what is kept of a broken answer: 10 MiB pieces
    scene.hub.faults.cut_after = 400_000
    size = len(scene.hub.repositories[MODEL].commits[scene.commits["model"]]["model.safetensors"])
    asked = scene.asked(lambda: scene.mirror())
    parts = [each for each in asked if "x-signature" in each.path]
    assert [each.range is None for each in parts] == [True, False]
    assert size <= sum(each.sent for each in parts) < 1.2 * size


def test_a_branch_that_moves_meanwhile_changes_nothing(scene: Scene, tiny_model: Path, monkeypatch: Any) -> None:
    resolve = client.Hub.resolve

    def moving(self: client.Hub, commit: str | None = None) -> tuple[str, str | None]:
        found = resolve(self, commit)
        if self.source.kind == "model":
            config = json.loads((tiny_model / "config.json").read_text())
            changed = {**model_files(tiny_model), "config.json": json.dumps({**config, "rms_norm_eps": 1e-6}).encode()}
            scene.hub.repositories[MODEL].commit(changed)
        return found

    monkeypatch.setattr(client.Hub, "resolve", moving)
    model = scene.mirror().sources[0]
    assert model.commit == scene.commits["model"]
    assert scene.output.read(f"{model.location('')[1:]}/config.json") == (tiny_model / "config.json").read_bytes()


def test_another_attempt_takes_the_commit_of_the_first(scene: Scene, tiny_model: Path) -> None:
    first = scene.mirror()
    prefix = first.sources[0].location("").removeprefix("/")
    scene.output.delete([info.path for info in scene.output.list(prefix)])
    with pytest.raises(TrainerError) as caught:
        check_there(scene.output, first)
    assert (caught.value.reason, caught.value.exit_code) == (Reason.MIRROR_MISSING, ExitCode.STORAGE_FAILED)
    changed = {**model_files(tiny_model), "generation_config.json": b'{"eos_token_id": 1}'}
    scene.hub.repositories[MODEL].commit(changed)
    assert scene.mirror(first) == first
    check_there(scene.output, first)


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
def test_bytes_that_are_not_those_of_the_listing_are_refused(scene: Scene, name: str) -> None:
    scene.hub.faults.corrupt = {name}
    error = scene.refused()
    assert (error.reason, error.exit_code) == (Reason.SOURCE_DAMAGED, ExitCode.STORAGE_FAILED)
    assert name in error.message
    assert not [info for info in scene.output.list("models/") if info.path.endswith((name, MANIFEST))]
    scene.hub.faults.corrupt = set()
    scene.mirror()


@pytest.mark.parametrize("pinned", ["main", "commit"])
def test_a_wrong_digest_is_refused_with_both_before_the_weights_are_fetched(scene: Scene, pinned: str) -> None:
    wanted, revision = "sha256:" + "0" * 64, scene.commits["model"] if pinned == "commit" else "main"
    scene.document["baseModel"] |= {"uri": f"hf://tiny/llama@{revision}", "digest": wanted}
    asked = scene.asked(lambda: None)
    error = scene.refused()
    assert isinstance(error, SettingsInvalid)
    assert error.reason is (Reason.REVISION_MOVED if pinned == "main" else Reason.BASE_MODEL_CHANGED)
    assert not [each for each in scene.hub.asked if "x-signature" in each.path]
    del scene.document["baseModel"]["digest"]
    digest = scene.mirror().sources[0].digest
    assert wanted in error.message
    assert digest in error.message
    scene.document["baseModel"]["digest"] = wanted  # and when it is there already
    assert scene.refused().message == error.message
    scene.document["baseModel"]["digest"] = digest
    scene.mirror()
    assert asked == []


def gated(scene: Scene) -> None:
    scene.hub.repositories[MODEL].gated = True


def private(scene: Scene) -> None:
    scene.hub.repositories[MODEL].private = True


def missing(scene: Scene) -> None:
    scene.document["baseModel"]["uri"] = "hf://tiny/lama@main"


def no_revision(scene: Scene) -> None:
    scene.document["baseModel"]["uri"] = "hf://tiny/llama@v2"


def wrong_token(scene: Scene) -> None:
    scene.keys(HF_TOKEN="hf_wrong")


def no_egress(scene: Scene) -> None:
    scene.keys(HF_ENDPOINT="http://127.0.0.1:9")


def no_hub(scene: Scene) -> None:
    scene.hub.faults.broken = 100


def over_quota(scene: Scene) -> None:
    scene.hub.faults.quota = (100, 300)


def no_keys(scene: Scene) -> None:
    scene.keys(HF_ENDPOINT="")


def no_endpoint(scene: Scene) -> None:
    scene.keys(HF_ENDPOINT="https://user:s3same@hub")


def pickles(scene: Scene) -> None:
    files = scene.hub.repositories[MODEL].commits[scene.commits["model"]]
    scene.hub.repositories[MODEL].commit({name: data for name, data in files.items() if name != "model.safetensors"})


def own_code(scene: Scene) -> None:
    files = scene.hub.repositories[MODEL].commits[scene.commits["model"]]
    config = {
        **json.loads(files["config.json"]),
        "model_type": "tiny_own",
        "auto_map": {"AutoModel": "modeling_tiny.X"},
    }
    scene.hub.repositories[MODEL].commit({**files, "config.json": json.dumps(config).encode()})


def nothing_readable(scene: Scene) -> None:
    scene.hub.repositories[ROWS].commit({"load.py": b"import os", "README.md": b"rows"})
    scene.document["dataset"]["training"]["uri"] = "hf://datasets/tiny/rows@main"


def no_such_file(scene: Scene) -> None:
    scene.document["dataset"]["training"]["uri"] = "hf://datasets/tiny/rows@main/data/test.jsonl"


def no_such_folder(scene: Scene) -> None:
    scene.document["dataset"]["training"]["uri"] = "hf://datasets/tiny/rows@main/train/"


SETTINGS, DATA, STORAGE = ExitCode.SETTINGS_INVALID, ExitCode.DATA_INVALID, ExitCode.STORAGE_FAILED
REFUSALS: dict[str, tuple[Callable[[Scene], None], ExitCode, Reason, str]] = {
    "gated": (gated, SETTINGS, Reason.SOURCE_GATED, "accept its terms at"),
    "private": (private, SETTINGS, Reason.SOURCE_NOT_FOUND, "may not be read with no token"),
    "missing": (missing, SETTINGS, Reason.SOURCE_NOT_FOUND, "there is no model tiny/lama"),
    "no such revision": (no_revision, SETTINGS, Reason.REVISION_NOT_FOUND, "has no revision v2"),
    "a token that is none": (wrong_token, SETTINGS, Reason.ACCESS_DENIED, "the token in Secret hub"),
    "no egress": (no_egress, STORAGE, Reason.HUB_UNREACHABLE, "trimtab.dev/stage: mirror"),
    "a hub that is down": (no_hub, STORAGE, Reason.HUB_UNREACHABLE, "answered 503"),
    "too many requests": (over_quota, STORAGE, Reason.HUB_QUOTA_EXCEEDED, "left alone for 300 s"),
    "a Secret without keys": (no_keys, SETTINGS, Reason.CREDENTIALS_MISSING, "neither HF_TOKEN nor HF_ENDPOINT"),
    "an endpoint that is none": (no_endpoint, SETTINGS, Reason.SETTINGS_INVALID, "is no URL of a hub"),
    "pickles": (pickles, SETTINGS, Reason.BASE_MODEL_INVALID, "pytorch_model.bin is a pickle"),
    "a model with code of its own": (own_code, SETTINGS, Reason.BASE_MODEL_INVALID, "is never run"),
    "no rows": (nothing_readable, DATA, Reason.DATASET_EMPTY, "refs/convert/parquet"),
    "no such folder": (no_such_folder, DATA, Reason.DATASET_NOT_FOUND, "a folder of the repository ends with"),
    "no such file": (no_such_file, DATA, Reason.DATASET_NOT_FOUND, "data/test.jsonl"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_everything_else_ends_by_name(scene: Scene, case: str, capsys: pytest.CaptureFixture[str]) -> None:
    befall, code, reason, words = REFUSALS[case]
    befall(scene)
    assert main(scene.command()) == code
    last = scene.last_words
    assert (last.reason, last.stage) == (reason, Stage.MIRROR)
    assert words in last.message
    assert last.retry_after_seconds == (300 if reason is Reason.HUB_QUOTA_EXCEEDED else None)
    said = capsys.readouterr()
    assert "s3same" not in said.out + said.err + last.message
    assert not [info for info in scene.output.list("models/") if info.path.endswith(".safetensors")]


def test_a_token_opens_what_is_gated_and_goes_to_the_hub_alone(scene: Scene, monkeypatch: Any) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_environment")
    gated(scene)
    assert scene.refused().reason is Reason.SOURCE_GATED
    assert {each.token for each in scene.hub.asked} == {None}
    scene.keys(HF_TOKEN="hf_right")
    scene.hub.tokens.add("hf_right")
    asked = scene.asked(lambda: scene.mirror())
    assert [each for each in asked if each.host == "127.0.0.1" and each.token != "hf_right"] == []
    assert {each.token for each in asked if each.host == "localhost"} == {None}


def test_a_short_wait_is_waited_for_and_a_fault_that_passes_is_none(scene: Scene, monkeypatch: Any) -> None:
    monkeypatch.setattr(client, "ATTEMPTS", 4)
    slept: list[float] = []
    monkeypatch.setattr(time, "sleep", slept.append)
    scene.hub.faults.quota, scene.hub.faults.broken = (1, 7), 2
    scene.mirror()
    assert slept[0] == 7
    assert scene.hub.faults.broken == 0


def test_a_long_wait_in_the_middle_of_the_files_ends_the_stage_too(scene: Scene) -> None:
    scene.hub.order_quota_at("/resolve/", 300)
    error = scene.refused()
    assert isinstance(error, HubFailed)
    assert (error.reason, error.retry_after) == (Reason.HUB_QUOTA_EXCEEDED, 300)


def test_a_hub_that_takes_a_connection_and_says_nothing_is_not_waited_for_forever(
    scene: Scene, monkeypatch: Any
) -> None:
    monkeypatch.setattr(client, "TIMEOUT_SECONDS", 0.2)
    scene.hub.faults.silent = True
    begun = time.monotonic()
    assert scene.refused().reason is Reason.HUB_UNREACHABLE
    assert time.monotonic() - begun < 25


def test_parts_of_a_data_set_are_mirrored_apart(scene: Scene) -> None:
    rows = write_rows(scene.folder / "more.jsonl", tiny_rows(30)).read_bytes()
    files = {"default/train/0.jsonl": rows, "default/test/0.jsonl": rows[:400]}
    commit = scene.hub.repositories[ROWS].commit(files, "refs/convert/parquet")
    at = "hf://datasets/tiny/rows@refs/convert/parquet/default/"
    scene.document["dataset"]["training"]["uri"] = f"{at}train/"
    scene.document["dataset"]["test"] = {"uri": f"{at}test/0.jsonl"}
    found = scene.mirror()
    assert [each.commit for each in found.sources[1:]] == [commit, commit]
    config = at_the_mirror(scene.config, found)
    assert config.dataset.test is not None
    assert config.dataset.test.uri is not None
    training, test = config.dataset.training.uri, config.dataset.test.uri
    assert open_store(training, None).read("0.jsonl") == rows
    assert open_store(test.rpartition("/")[0], None).read("0.jsonl") == rows[:400]
    assert [info.path for info in open_store(training, None).list()] == ["0.jsonl"]


def test_a_file_that_leaves_the_folder_is_refused(scene: Scene) -> None:
    scene.hub.repositories[ROWS].commit({"data/../../../evil.jsonl": b"{}\n"})
    scene.document["dataset"]["training"]["uri"] = "hf://datasets/tiny/rows@main"
    error = scene.refused()
    assert error.reason is Reason.SETTINGS_INVALID
    assert "cannot be mirrored" in error.message


def test_on_a_laptop_mirror_writes_what_the_others_are_given(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    found = scene.folder / "mirrored.json"
    assert main(scene.command(stage="prepare")) == ExitCode.SETTINGS_INVALID
    assert "run `trimtab-trainer mirror" in scene.last_words.message
    assert main(scene.command("--found", str(found))) == ExitCode.DONE
    assert scene.last_words.mirrored == Mirrored.model_validate_json(found.read_text())
    assert main(scene.command("--mirrored", str(found), stage="prepare")) == ExitCode.DONE
    assert scene.last_words.prepared is not None
    scene.output.delete([info.path for info in scene.output.list("models/")])
    assert main(scene.command("--mirrored", str(found), stage="prepare")) == ExitCode.STORAGE_FAILED
    assert scene.last_words.reason is Reason.MIRROR_MISSING
    capsys.readouterr()


def test_a_note_that_is_not_true_is_made_again(scene: Scene) -> None:
    first = scene.mirror()
    note = f"sources/models/tiny/llama/{first.sources[0].commit}.json"
    for words in (b"{", b'{"digest": "sha256:1"}', json.dumps({"commit": "0" * 40}).encode()):
        scene.output.put(note, words)
        assert scene.mirror() == first
    with pytest.raises(ObjectMissing):
        scene.output.read("sources/models/tiny/llama/main.json")


def test_a_certificate_that_nobody_vouches_for_is_told_and_one_that_is_named_is_trusted(
    scene: Scene, monkeypatch: Any, tmp_path: Path
) -> None:
    certificate = scene.hub.speak_tls(tmp_path)
    scene.keys(HF_ENDPOINT=f"https://127.0.0.1:{scene.hub.port}")
    error = scene.refused()
    assert (error.reason, "SSL_CERT_FILE" in error.message) == (Reason.SETTINGS_INVALID, True)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    scene.mirror()


def test_credentials_are_never_shown() -> None:
    from trimtab_trainer.hub.keys import HubKeys

    assert "hf_secret" not in repr(HubKeys("https://hub", "hf_secret", "Secret hub"))
    assert Credentials(directory="/keys").secret_name is None
    assert os.environ.get("HF_TOKEN") is None


@pytest.mark.parametrize("asked_for", [0, 1])
def test_who_asks_for_less_than_the_own_pause_is_left_alone_for_that(
    asked_for: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client, "ATTEMPTS", 4)
    asked, slept = iter(range(3)), list[float]()
    monkeypatch.setattr(time, "sleep", slept.append)
    hub = client.Hub.__new__(client.Hub)

    def question() -> str:
        if next(asked, None) is not None:
            raise RuntimeError
        return "answered"

    monkeypatch.setattr(client, "named", lambda *_: HubFailed("busy", retry_after=asked_for))
    hub.source = hub._keys = None  # type: ignore[assignment]
    assert hub._ask(question) == "answered"
    assert slept == [1, 2, 4]
