"""The trainer dies between every two operations of a real object storage, or one of them goes wrong: nothing is lost.

A whole run, from `prepare` to what is published, in a process of its own with three checkpoints: on rows, and on
preferences, whose reference log-probabilities are stored too. Each operation is a life of its own: when the storage has
carried it out the process is killed, or it fails by `TROUBLES`. Once the run begins with nothing, and once it goes on
from its second checkpoint. Whatever has a manifest is whole at any time, and the attempts that follow end with the
adapter of a run that nothing happened to, bit for bit, in the same objects.

A few lives are part of `make test`, other operations in other ways for each method; `make test-long` lives them all,
which takes hours: a case is a kind of trouble and a share of the operations, so that it can be done in pieces, and says
how far it is (`-rP` says what was lived).
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from trimtab_trainer.contract import ExitCode, RunConfig
from trimtab_trainer.prepare import PROBE
from trimtab_trainer.publishing.result import read_result
from trimtab_trainer.reporting import answers
from trimtab_trainer.storage import MANIFEST, Store, keys, open_store, read_manifest, verify
from trimtab_trainer.training.checkpoint import Checkpoints

from tests.long import LONG, long_unless
from tests.trainer.conftest import ObjectStorage, write_keys
from tests.trainer.front import Asked, Front, Refusal, front
from tests.trainer.train.distributed.pods import Pod
from tests.trainer.train.methods.stage import preference_run
from tests.trainer.train.stage import StageRun, stage_run

APART = 36
"""Operations between those of a method that are part of `make test`."""
METHODS = ("SFT", "DPO", "KTO", "ORPO")
MOST_ATTEMPTS = 3
SHARES = 8
"""Cases of the whole sweep for each kind of trouble: every eighth operation each."""
REFUSALS: dict[str, Refusal] = {"answers 500": (500, "InternalError"), "answers 503": (503, "SlowDown")}
APPLY = {"gives other bytes": "GET", "is given other bytes": "PUT"}
"""Kinds of trouble of one method alone: of a request to delete no server looks at the hash."""
TROUBLES = (
    *("killed", *REFUSALS, "gives other bytes", "is given other bytes"),
    *("hangs up", "hangs up and is asked again", "answers too late"),
)
PATIENCE = 5
"""Seconds after which an answer is too late: what else an attempt asks is answered by then on a busy machine too."""
RESULT = "PUT /runs/*/RESULT.json"
FIRST_CHECKPOINT = "PUT /runs/*/checkpoints/step-000002-00000000-1/MANIFEST.json"
SECOND_CHECKPOINT = FIRST_CHECKPOINT.replace("000002", "000004")
BEGIN = Checkpoints.begin


class Trouble:
    """What happens in the n-th operation of an attempt, the first being 1; nothing in the 0th."""

    def __init__(self, kind: str = "", number: int = 0) -> None:
        self.kind, self.number = kind, number
        self.happened = not kind
        self._pid, self._started = 0, threading.Event()

    def of(self, pid: int) -> None:
        """Take the process that has the trouble."""
        self._pid = pid
        self._started.set()

    def stands(self, before: Front) -> None:
        """Happen in what a front passes on."""

        def now(asked: Asked, kind: str) -> bool:
            met = kind == self.kind and len(before.asked) >= self.number and before.asked[self.number - 1] is asked
            self.happened |= met
            return met

        def refused(asked: Asked) -> Refusal | None:
            return REFUSALS[self.kind] if self.kind in REFUSALS and now(asked, self.kind) else None

        def sent(asked: Asked, body: bytes) -> bytes:
            return flipped(body) if now(asked, "is given other bytes") else body

        def answered(asked: Asked, body: bytes) -> bytes:
            if now(asked, "killed"):
                self._started.wait()
                os.kill(self._pid, signal.SIGKILL)
                raise ConnectionResetError
            if now(asked, "hangs up") or now(asked, "hangs up and is asked again"):
                if asked.method == "GET" and body:
                    return body[: len(body) // 2]
                raise ConnectionResetError
            if now(asked, "answers too late"):
                time.sleep(2 * PATIENCE)
                raise ConnectionResetError
            if self.kind == "is slow":
                self.happened = True
                time.sleep(0.05)
            return flipped(body) if now(asked, "gives other bytes") else body

        before.quirk, before.sent, before.answered = refused, sent, answered


@dataclass(frozen=True)
class Scene:
    """A run, what came of it when nothing happened, and where the attempts of a life reach their storage.

    Attributes:
        digest: of its adapter.
        paths: of its objects, in the end.
        operations: what an attempt asks of the storage, in order.
        begun: objects from which it goes on; none where it begins.
    """

    run: StageRun
    storage: ObjectStorage
    front: Front
    keys: Path
    digest: str = ""
    paths: tuple[str, ...] = ()
    operations: tuple[str, ...] = ()
    begun: tuple[tuple[str, bytes], ...] = ()

    def attempt(self, uri: str, number: int, trouble: Trouble) -> tuple[int, list[dict[str, Any]]]:
        """Run an attempt; return how it ended, as `Popen` does, and what it said."""
        root = self.run.root / f"attempt-{number}"
        root.mkdir()
        output = {"output": {"uri": uri, "credentials": {"directory": str(self.keys)}}}
        config = RunConfig.model_validate(self.run.config.to_json() | output)
        del self.front.asked[:]
        trouble.stands(self.front)
        with pytest.MonkeyPatch.context() as patch:  # else each operation fails where it fails
            if trouble.kind and trouble.kind not in ("killed", "is slow") and not trouble.kind.endswith("again"):
                patch.setattr(keys, "ATTEMPTS", 1)
            if trouble.kind == "answers too late":
                patch.setattr(keys, "READ_TIMEOUT", PATIENCE)
            pod = Pod(root, StageRun(root, config, self.run.prepared), number, env={}, prepares=True)
        trouble.of(pod.handle.pid)
        pod.until("")
        code = pod.handle.wait()
        shutil.rmtree(root)
        return code, pod.events

    def live(self, trouble: Trouble) -> Store:
        """Live to the end, with a trouble in the first attempt; return the storage."""
        uri = self.storage.uri()
        store = open_store(uri, self.storage.credentials())
        for path, data in self.begun:
            store.put(path, data)
        for number in range(1, MOST_ATTEMPTS + 1):
            code, events = self.attempt(uri, number, trouble)
            check_whole(store)
            assert trouble.happened, (trouble.kind, trouble.number, len(self.front.asked))
            assert (code == -signal.SIGKILL) is (trouble.kind == "killed"), (trouble.kind, code)
            if code == ExitCode.DONE:
                return store
            if trouble.kind != "killed":
                assert code == ExitCode.STORAGE_FAILED, (trouble.kind, trouble.number, events[-2:])
            trouble = Trouble()
        raise AssertionError(events[-2:])

    def asked(self, uri: str) -> tuple[str, ...]:
        """What the last attempt asked of the storage."""
        return tuple(named(each, uri) for each in self.front.asked)


def named(asked: Asked, uri: str) -> str:
    """Return what an operation is, without hashes and without where the run lies."""
    path = asked.path.replace("%2F", "/").partition(uri.split("/")[3])[2].partition("&")[0]
    return f"{asked.method} {re.sub('[0-9a-f]{16,}', '*', path)}{' (list)' if 'list-type' in asked.path else ''}"


def check_whole(store: Store) -> None:
    """Read every byte of all that has a manifest."""
    for info in store.list():
        if info.path.endswith(f"/{MANIFEST}"):
            prefix = info.path.removesuffix(f"/{MANIFEST}")
            manifest = read_manifest(store, prefix)
            assert manifest is not None
            verify(store, prefix, manifest)


def fits(kind: str, operation: str) -> bool:
    """Tell whether a kind of trouble can happen in an operation."""
    return operation.startswith(APPLY.get(kind, ""))


def some_troubles(method: str, operations: Sequence[str]) -> list[tuple[int, str]]:
    """Return the numbers of operations, the first being 1, that are part of `make test`, and what happens in each."""
    own = METHODS.index(method)
    found = []
    for number, operation in enumerate(operations, 1):
        place = number + own * APART // len(METHODS)
        if place % APART == 0:
            fitting = [kind for kind in TROUBLES if fits(kind, operation)]
            turn = place // APART - 1 + 2 * own  # the first of each method goes wrong in another way
            found.append((number, fitting[turn % len(fitting)]))
    return found


@dataclass(frozen=True)
class Share:
    """A part of the whole sweep: one kind of trouble, in every `SHARES`-th operation from the `first` on."""

    kind: str
    first: int

    def troubles(self, operations: Sequence[str]) -> list[tuple[int, str]]:
        """Return the numbers of its operations, and what happens in each of them."""
        numbers = range(self.first, len(operations) + 1, SHARES)
        return [(number, self.kind) for number in numbers if fits(self.kind, operations[number - 1])]


def flipped(body: bytes) -> bytes:
    """Return the bytes with one bit in their middle changed."""
    middle = len(body) // 2
    return body[:middle] + bytes(each ^ 1 for each in body[middle : middle + 1]) + body[middle + 1 :]


@pytest.fixture(autouse=True)
def one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every checkpoint is stored, so that operations come in one order: the processes are forked from this one.

    Answers for people are short, which no operation depends on: they take half of the time of a life.
    """
    monkeypatch.setattr(answers, "MOST_TOKENS", answers.FEWEST_TOKENS)

    def begun(self: Checkpoints, *arguments: Any) -> None:
        BEGIN(self, *arguments)
        self.settle()

    monkeypatch.setattr(Checkpoints, "begin", begun)


@pytest.fixture(scope="module")
def scene(object_storage: ObjectStorage, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Scene]]:
    """Give the scene of a method, once it was lived without trouble; `begun`, from its second checkpoint."""
    known: dict[tuple[str, bool], Scene] = {}
    with front(lambda _: None, object_storage.endpoint) as (state, port):
        folder = write_keys(tmp_path_factory.mktemp("keys"), f"http://127.0.0.1:{port}", "writer-key", "writer-secret")

        def of(method: str, begun: bool = False) -> Scene:
            if (method, begun) not in known:
                known[method, begun] = halfway(of(method)) if begun else fresh(method)
            return known[method, begun]

        def fresh(method: str) -> Scene:
            root = tmp_path_factory.mktemp(method)
            run = stage_run(root) if method == "SFT" else preference_run(root, method)
            digest = run.train()[0].digest  # in this process, so that the others find everything imported
            made = Scene(run, object_storage, state, folder, digest)
            store = made.live(Trouble())
            paths = tuple(info.path for info in store.list())
            return replace(made, paths=paths, operations=made.asked(store.uri))

        def halfway(whole: Scene) -> Scene:
            uri = object_storage.uri()
            code, _ = whole.attempt(uri, 1, Trouble("killed", whole.operations.index(SECOND_CHECKPOINT) + 1))
            assert code == -signal.SIGKILL
            store = open_store(uri, object_storage.credentials())
            made = replace(whole, begun=tuple((info.path, store.read(info.path)) for info in store.list()))
            return replace(made, operations=made.asked(made.live(Trouble()).uri))

        yield of


SWEEP = [
    pytest.param(Share(kind, first), id=f"{kind}-{first} of {SHARES}", marks=[LONG, pytest.mark.timeout(0)])
    for kind in TROUBLES
    for first in range(1, SHARES + 1)
]


@pytest.mark.parametrize("share", [pytest.param(None, id="some"), *SWEEP])
@pytest.mark.parametrize("begun", [False, True], ids=["a run that begins", "a run that goes on"])
@pytest.mark.parametrize("method", METHODS)
def test_no_operation_loses_a_run(scene: Callable[..., Scene], method: str, begun: bool, share: Share | None) -> None:
    made = scene(method, begun)
    happening = some_troubles(method, made.operations) if share is None else share.troubles(made.operations)
    for number, kind in happening:
        # From then on the run is over, and what is not deleted of its checkpoints is left to a rule of the bucket.
        over = RESULT in made.operations[:number]
        operation = made.operations[number - 1]
        check_same(made, made.live(Trouble(kind, number)), f"{kind}: {operation}", but="/checkpoints/" if over else "")
    print(f"{len(happening)} lives, in {len(made.operations)} operations of {method}")


@pytest.mark.parametrize("method", long_unless(lambda method: method in METHODS[:2], METHODS))
def test_storage_that_is_slow_all_the_time_leaves_no_trace(scene: Callable[..., Scene], method: str) -> None:
    made = scene(method)
    check_same(made, made.live(Trouble("is slow")), "is slow")


def test_a_death_while_a_checkpoint_is_stored_beside_a_step_loses_nothing(
    scene: Callable[..., Scene], monkeypatch: pytest.MonkeyPatch
) -> None:
    made = scene("SFT")
    monkeypatch.setattr(Checkpoints, "begin", BEGIN)
    number = made.operations.index(FIRST_CHECKPOINT) + 1
    check_same(made, made.live(Trouble("killed", number)), "killed beside a step")


def check_same(made: Scene, store: Store, case: str, *, but: str = "") -> None:
    """Hold the end of a life against that of a run that nothing happened to; `but` is of objects that may be more."""
    result = read_result(store, made.run.prepared.run_digest)
    assert result is not None, case
    assert result.digest == made.digest, case
    found = {info.path for info in store.list() if not info.path.startswith(PROBE)}
    assert set(made.paths) == {path for path in found if not (but and but in path)}, case
