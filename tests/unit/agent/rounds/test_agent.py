"""The agent against a fake engine behind the real guard: what is true whatever fails."""

from __future__ import annotations

import asyncio
import shutil
import threading
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from trimtab_agent.documents import Refused
from trimtab_agent.engine.table import PACKAGE, AliasTable
from trimtab_agent.engine.vllm import VLLM, ServedModel
from trimtab_agent.rounds.revisions import LONGEST_PAUSE
from trimtab_agent.weights.store import AdapterStore

from tests.unit.agent.pod import PATIENCE_SECONDS, RESTORE_SECONDS, Pod, running


@pytest.fixture
async def pod(tmp_path: Path) -> AsyncIterator[Pod]:
    async with running(tmp_path) as pod:
        yield pod


async def test_a_revision_is_proven_and_then_the_alias_moves(pod: Pod) -> None:
    adapter = pod.publish()
    pod.agent.accept(pod.share(adapter))
    await pod.until(lambda: pod.proven(adapter))
    assert pod.table() == {}
    assert (await pod.ask())[0] == 404
    pod.agent.accept(pod.share(adapter, alias=adapter))
    assert await pod.ask() == (200, adapter.name("guide"))
    assert await pod.ready()
    revision = pod.revision(adapter)
    assert revision["verified"]
    assert set(revision["seconds"]) == {"fetch", "load", "probe"}
    folder = str(pod.volume.adapters / adapter.digest[7:])
    assert pod.agent.truth().to_json()["engine"]["adapters"] == [{"name": adapter.name("guide"), "root": folder}]


@pytest.mark.parametrize("name", ["Org/My_Model-v1.2", "a/b/c", "ft:smol:org:id", "A" * 96])
async def test_a_name_with_capitals_and_slashes_is_served_and_makes_no_folders(pod: Pod, name: str) -> None:
    adapter = pod.publish()
    revisions = [{"name": adapter.name(name), "uri": adapter.uri, "digest": adapter.digest}]
    given: dict[str, Any] = {"adapterName": name, "revisions": revisions}
    pod.agent.accept(pod.share(**given))
    await pod.until(lambda: pod.proven(adapter, name))
    pod.agent.accept(pod.share(**given, aliases={name: {adapter.name(name): 100}}))
    assert await pod.ask(name) == (200, adapter.name(name))
    assert await pod.ready()
    await pod.kill_agent()
    await pod.start_agent()
    await pod.until(lambda: pod.proven(adapter, name))
    assert await pod.ask(name) == (200, adapter.name(name))
    folders = {path.name for path in pod.folder.rglob("*") if path.is_dir() and "s3" not in path.parts}
    assert {each for each in folders if PACKAGE not in each} <= {"shared", "adapters", "state", adapter.digest[7:]}


async def test_an_alias_cannot_move_to_what_is_not_proven(pod: Pod) -> None:
    old, new = pod.publish(), pod.publish()
    await pod.serve(old)
    with pytest.raises(Refused) as caught:
        pod.agent.accept(pod.share(old, new, alias=new))
    assert (caught.value.status, caught.value.reason) == (409, "NotVerified")
    assert await pod.ask() == (200, old.name("guide"))


async def test_an_alias_that_answers_nothing_yet_moves_at_once_and_is_never_missing(pod: Pod) -> None:
    """The document that a new pod starts from may be overtaken: without its alias the pod would be ready, with 404."""
    old, new = pod.publish(), pod.publish()
    pod.engine.faults.load_status, pod.engine.faults.load_message = 503, "busy"
    pod.agent.accept(pod.share(old, alias=old), mounted=True)
    await pod.until(lambda: pod.failed(old))
    assert not await pod.ready()
    pod.agent.accept(pod.share(new, old, alias=new))
    assert "pending" in pod.table()["guide"]
    assert not await pod.ready()
    pod.engine.faults.load_status = 0
    await pod.until(lambda: pod.proven(new))
    await pod.until_ready()
    assert await pod.ask() == (200, new.name("guide"))


async def test_move_split_and_rollback_lose_no_request(pod: Pod) -> None:
    old, new = pod.publish(), pod.publish()
    await pod.serve(old)
    pod.agent.accept(pod.share(old, new, alias=old))
    await pod.until(lambda: pod.proven(new))
    answers: list[tuple[int, str]] = []
    stop = asyncio.Event()

    async def client() -> None:
        while not stop.is_set():
            answers.append(await pod.ask())

    clients = [asyncio.create_task(client()) for _ in range(4)]
    for alias in ({old.name("guide"): 50, new.name("guide"): 50}, new, old, new):
        pod.agent.accept(pod.share(old, new, alias=alias))
        assert alias is not new or (await pod.ask())[1] == new.name("guide")
        enough = len(answers) + 8
        await pod.until(lambda enough=enough: len(answers) >= enough)  # type: ignore[misc]
    stop.set()
    await asyncio.gather(*clients)
    assert {status for status, _ in answers} == {200}
    assert {model for _, model in answers} == {old.name("guide"), new.name("guide")}


async def test_what_nobody_wants_is_unloaded_and_later_removed(pod: Pod) -> None:
    old, new = pod.publish(), pod.publish()
    await pod.serve(old)
    await pod.serve(new, old)
    pod.agent.accept(pod.share(new, alias=new))
    await pod.until(lambda: old.name("guide") not in pod.engine.loaded)
    await pod.until(lambda: pod.store.digests() == {new.digest})
    assert await pod.ask() == (200, new.name("guide"))
    pod.agent.accept(pod.share(retired=True))
    await pod.until(lambda: pod.engine.loaded == {} and pod.store.digests() == set())
    assert pod.agent.truth().to_json()["rollouts"] == []


async def test_a_folder_stays_while_the_engine_lists_it(pod: Pod) -> None:
    adapter = pod.publish()
    await pod.serve(adapter)
    pod.engine.loaded["by-hand"] = str(pod.store.folder(adapter.digest)) + "/"
    pod.engine.markers["by-hand"] = "x"
    pod.engine.loaded["elsewhere"] = "/models/static"
    pod.engine.markers["elsewhere"] = "y"
    pod.agent.accept(pod.share(retired=True))
    await pod.until(lambda: adapter.name("guide") not in pod.engine.loaded)
    await pod.until(lambda: pod.store.digests() == set())
    assert set(pod.engine.loaded) == {"elsewhere"}  # ours, whatever its name, is unloaded before its folder goes


async def test_a_restarted_engine_gets_everything_back_before_it_is_ready(pod: Pod) -> None:
    adapter = pod.publish()
    await pod.serve(adapter)
    await pod.server.stop()
    await pod.until(lambda: not pod.agent.truth().to_json()["engine"]["answers"])
    load = asyncio.Event()
    pod.engine.faults.on_load = load.wait
    await pod.start_engine()
    assert not await pod.ready()
    load.set()
    await pod.until_ready()
    assert await pod.ask() == (200, adapter.name("guide"))


async def test_a_proof_is_of_the_engine_that_gave_it(pod: Pod) -> None:
    """After a restart the alias answers as soon as its revision is loaded; another one has to be probed again first."""
    old, new = pod.publish(), pod.publish()
    await pod.serve(old)
    pod.agent.accept(pod.share(old, new, alias=old))
    await pod.until(lambda: pod.proven(new))
    assert pod.revision(new)["rank"] == 4
    await pod.server.stop()
    await pod.until(lambda: not pod.agent.truth().to_json()["engine"]["answers"])
    answer = pod.engine.faults.held_models[new.name("guide")] = asyncio.Event()
    await pod.start_engine()
    await pod.until(lambda: pod.revision(new)["loaded"])
    assert not pod.revision(new)["probed"]
    with pytest.raises(Refused, match="not proven"):
        pod.agent.accept(pod.share(old, new, alias=new))
    assert await pod.ready()
    assert await pod.ask() == (200, old.name("guide"))
    answer.set()
    await pod.until(lambda: pod.proven(new))


async def test_an_engine_that_hangs_does_not_hide_the_truth(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    async def never() -> None:
        await asyncio.sleep(60)

    await pod.until(lambda: pod.agent.truth().to_json()["engine"]["answers"])
    assert await pod.agent.counts() is not None
    await pod.kill_agent()
    pod.options = {"counts_seconds": 0.1}
    await pod.start_agent()
    await pod.until(lambda: pod.agent.truth().to_json()["engine"]["answers"])
    monkeypatch.setattr(VLLM, "counts", lambda engine: never())
    assert await asyncio.wait_for(pod.agent.counts(), 30) is None


async def test_a_version_is_never_told_twice(pod: Pod) -> None:
    """Whoever waits for the next change after a version of an earlier process is answered at once."""
    version = await pod.at_rest()
    await pod.kill_agent()
    await pod.start_agent()
    assert pod.agent.version > version
    await asyncio.wait_for(pod.agent.wait_for_change(version, 60), 30)


async def test_an_engine_that_restarts_while_it_loads(pod: Pod) -> None:
    old, new = pod.publish(), pod.publish()
    await pod.serve(old)
    pod.engine.faults.on_load = asyncio.Event().wait
    pod.agent.accept(pod.share(old, new, alias=old))
    await pod.until(lambda: ("POST", "/v1/load_lora_adapter") in pod.engine.calls[-3:])
    await pod.server.stop()
    pod.engine.faults.on_load = None
    await pod.start_engine()
    await pod.until(lambda: pod.proven(old) and pod.proven(new))
    assert await pod.ask() == (200, old.name("guide"))


async def test_a_restarted_agent_changes_nothing_and_knows_everything(pod: Pod) -> None:
    adapter = pod.publish()
    await pod.serve(adapter)
    before = (pod.volume_folder / "aliases.json").stat()
    token = (pod.volume_folder / "token").read_text()
    await pod.kill_agent()
    shutil.rmtree(pod.folder / "s3")  # nothing is fetched again
    await pod.start_agent()
    assert await pod.ready()
    await pod.until(lambda: pod.proven(adapter))
    assert await pod.ask() == (200, adapter.name("guide"))
    after = (pod.volume_folder / "aliases.json").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert (pod.volume_folder / "token").read_text() == token
    assert pod.engine.calls.count(("POST", "/v1/load_lora_adapter")) == 1


async def test_a_new_pod_is_not_ready_until_its_mounted_alias_answers(pod: Pod) -> None:
    adapter = pod.publish()
    load = asyncio.Event()
    pod.engine.faults.on_load = load.wait
    pod.agent.accept(pod.share(adapter, alias=adapter), mounted=True)
    assert "pending" in pod.table()["guide"]
    assert not await pod.ready()
    assert (await pod.ask())[0] == 503
    load.set()
    await pod.until_ready()
    assert await pod.ask() == (200, adapter.name("guide"))


async def test_a_newer_mounted_document_moves_an_alias_only_when_it_can(pod: Pod) -> None:
    old, new = pod.publish(), pod.publish()
    await pod.serve(old)
    pod.engine.faults.load_status, pod.engine.faults.load_message = 500, "busy"
    pod.agent.accept(pod.share(new, alias=new), mounted=True)
    await pod.until(lambda: pod.failed(new) == "EngineFailed")
    assert await pod.ask() == (200, old.name("guide"))
    assert await pod.ready()
    pod.engine.faults.load_status = 0
    await pod.until(lambda: pod.table()["guide"] == {"to": {new.name("guide"): 100}})
    await pod.until(lambda: old.name("guide") not in pod.engine.loaded)


async def test_what_cannot_be_restored_stops_holding_the_pod_back(pod: Pod) -> None:
    adapter = pod.publish()
    await pod.serve(adapter)
    await pod.server.stop()
    pod.engine.faults.load_status, pod.engine.faults.load_message = 500, "out of memory"
    await pod.start_engine()
    await pod.until(lambda: pod.failed(adapter) == "EngineFailed")
    await pod.looks(3)
    assert not await pod.ready()
    pod.pass_time(RESTORE_SECONDS)
    await pod.until_ready()
    status, _ = await pod.ask()
    assert status == 503
    assert "out of memory" in pod.table()["guide"]["unavailable"]
    assert (await pod.ask("smol"))[0] == 200
    pod.engine.faults.load_status = 0
    pod.pass_time(LONGEST_PAUSE)
    await pod.until(lambda: "to" in pod.table()["guide"])
    assert await pod.ask() == (200, adapter.name("guide"))


REFUSED_BEFORE_THE_ENGINE: dict[str, tuple[dict[str, Any], str]] = {
    "rank too high": ({"rank": 32}, "RankTooHigh"),
    "another base model": ({"base": "sha256:" + "e" * 64}, "BaseModelMismatch"),
    "no numbers": ({"spoil": lambda numbers: numbers.fill(float("nan"))}, "NotFinite"),
    "changes nothing": ({"zero": True}, "ChangesNothing"),
}


@pytest.mark.parametrize("case", REFUSED_BEFORE_THE_ENGINE)
async def test_what_can_be_seen_in_the_files_never_reaches_the_engine(pod: Pod, case: str) -> None:
    changes, reason = REFUSED_BEFORE_THE_ENGINE[case]
    adapter = pod.publish(**changes)
    pod.agent.accept(pod.share(adapter))
    await pod.until(lambda: pod.failed(adapter) == reason)
    pod.pass_time(LONGEST_PAUSE)
    await pod.looks(3)
    assert ("POST", "/v1/load_lora_adapter") not in pod.engine.calls
    with pytest.raises(Refused, match="not proven"):
        pod.agent.accept(pod.share(adapter, alias=adapter))


async def test_a_permanent_500_is_not_repeated_and_harms_no_other(pod: Pod) -> None:
    good, bad = pod.publish(), pod.publish()
    await pod.serve(good)
    pod.engine.faults.load_status = 500
    pod.engine.faults.load_message = "The size of tensor a (576) must match the size of tensor b (640)"
    pod.agent.accept(pod.share(good, bad, alias=good))
    await pod.until(lambda: pod.failed(bad) == "BaseModelMismatch")
    pod.pass_time(LONGEST_PAUSE)
    await pod.looks(3)
    assert pod.engine.calls.count(("POST", "/v1/load_lora_adapter")) == 2
    assert await pod.ask() == (200, good.name("guide"))


async def test_a_transient_500_is_repeated(pod: Pod) -> None:
    adapter = pod.publish()
    pod.engine.faults.load_status, pod.engine.faults.load_message = 500, "EngineCore is busy"
    pod.engine.faults.loads_to_fail = 1
    pod.agent.accept(pod.share(adapter))
    await pod.until(lambda: pod.failed(adapter) == "EngineFailed")
    await pod.until(lambda: pod.proven(adapter))
    assert pod.failed(adapter) is None


async def test_a_load_that_hangs_ends_in_time_and_its_late_success_is_seen(pod: Pod) -> None:
    adapter = pod.publish()
    await pod.kill_agent()
    pod.timeouts = replace(pod.timeouts, load=0.5)
    await pod.start_agent()
    pod.engine.faults.on_load = asyncio.Event().wait
    pod.agent.accept(pod.share(adapter))
    await pod.until(lambda: pod.failed(adapter) == "EngineFailed")
    pod.engine.faults.on_load = None
    # the engine finished after the caller had given up
    pod.engine.loaded[adapter.name("guide")] = str(pod.store.folder(adapter.digest))
    pod.engine.markers[adapter.name("guide")] = "late"
    await pod.until(lambda: pod.proven(adapter))


async def test_an_engine_that_lies_about_loading_is_not_believed(pod: Pod) -> None:
    adapter = pod.publish()
    pod.engine.faults.forgets = {adapter.name("guide")}
    pod.agent.accept(pod.share(adapter))
    await pod.until(lambda: pod.failed(adapter) is not None)
    with pytest.raises(Refused, match="not proven"):
        pod.agent.accept(pod.share(adapter, alias=adapter))
    pod.engine.faults.forgets = set()
    await pod.until(lambda: pod.proven(adapter))


async def test_the_same_name_from_another_folder_is_not_the_revision(pod: Pod) -> None:
    adapter, other = pod.publish(), pod.publish()
    name = adapter.name("guide")
    pod.engine.loaded[name] = str(other.folder)
    pod.engine.markers[name] = "other"
    pod.agent.accept(pod.share(adapter))
    await pod.until(lambda: pod.proven(adapter))
    assert pod.engine.loaded[name] == str(pod.store.folder(adapter.digest))


async def test_a_wrong_answer_fails_the_probe_and_a_new_probe_may_pass(pod: Pod) -> None:
    adapter = pod.publish()
    pod.agent.accept(pod.share(adapter, probe={"contains": "ALPHA"}))
    await pod.until(lambda: pod.failed(adapter) == "ProbeFailed")
    await pod.until(lambda: pod.engine.loaded == {})  # nobody can ask for it by its full name either
    pod.agent.accept(pod.share(adapter, probe={"kind": "Chat"}))
    await pod.until(lambda: pod.proven(adapter))


@pytest.mark.parametrize(
    ("fault", "reason"),
    [("mimics_base", "ChangesNothing"), ("answer_status", "ProbeFailed"), ("poisonous", "BaseHarmed")],
)
async def test_a_revision_that_answers_badly_gets_no_traffic(pod: Pod, fault: str, reason: str) -> None:
    adapter = pod.publish()
    name = adapter.name("guide")
    if fault == "poisonous":
        pod.engine.faults.poisonous = {name}
    elif fault == "mimics_base":
        pod.engine.faults.mimics_base = {name}
    else:
        pod.engine.faults.answer_status = {name: 500}
    pod.agent.accept(pod.share(adapter))
    await pod.until(lambda: pod.failed(adapter) == reason)
    with pytest.raises(Refused, match="not proven"):
        pod.agent.accept(pod.share(adapter, alias=adapter))


async def test_a_harmed_engine_is_given_up_and_the_next_one_never_sees_the_cause(pod: Pod) -> None:
    good, bad = pod.publish(), pod.publish()
    await pod.serve(good)
    pod.engine.faults.poisonous = {bad.name("guide")}
    pod.agent.accept(pod.share(good, bad, alias=good))
    await pod.until(lambda: pod.failed(bad) == "BaseHarmed")
    async with pod.session.get(pod.server.url + "/-/trimtab/live") as response:
        assert response.status == 503
    assert not await pod.ready()
    await pod.server.stop()
    await pod.start_engine()  # the kubelet does, for its liveness probe
    await pod.until_ready()
    assert await pod.ask() == (200, good.name("guide"))
    pod.pass_time(LONGEST_PAUSE)
    await pod.looks(3)
    assert set(pod.engine.loaded) == {good.name("guide")}


async def test_two_rollouts_share_a_pod_and_not_an_alias(pod: Pod) -> None:
    one, two = pod.publish(), pod.publish()
    await pod.serve(one)
    await pod.serve(two, rollout="kinds")
    assert await pod.ask("kinds") == (200, two.name("kinds"))
    with pytest.raises(Refused) as caught:
        pod.agent.accept(pod.share(two, rollout="kinds", aliases={"guide": {two.name("kinds"): 1}}))
    assert caught.value.reason == "AliasHeld"
    with pytest.raises(Refused) as caught:
        pod.agent.accept(pod.share(two, rollout="kinds", aliases={"smol": {two.name("kinds"): 1}}))
    assert caught.value.reason == "NameIsBaseModel"


async def test_more_than_the_engine_holds_is_refused(tmp_path: Path) -> None:
    async with running(tmp_path, max_cpu_loras=2) as pod:
        one, two, three = (pod.publish() for _ in range(3))
        await pod.serve(one)
        with pytest.raises(Refused) as caught:
            pod.agent.accept(pod.share(one, two, three, alias=one))
        assert (caught.value.status, caught.value.reason) == (409, "DoesNotFit")
        pod.engine.loaded["by-hand"] = "/models/static"
        pod.agent.accept(pod.share(one, two, alias=one))
        await pod.until(lambda: pod.failed(two) == "DoesNotFit")
        del pod.engine.loaded["by-hand"]
        await pod.until(lambda: pod.proven(two))


async def test_damaged_objects_are_refused_until_they_are_restored(pod: Pod) -> None:
    adapter = pod.publish()
    file = adapter.folder / "adapter_model.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    pod.agent.accept(pod.share(adapter))
    await pod.until(lambda: pod.failed(adapter) == "ArtifactDamaged")
    file.write_bytes(whole)
    await pod.until(lambda: pod.proven(adapter))


@pytest.mark.parametrize(
    ("error", "permanent"), [(RecursionError("deep"), False), (ValueError("[]"), False), (MemoryError(), False)]
)
async def test_files_that_nobody_thought_of_are_damaged_and_not_read_again_in_every_round(
    pod: Pod, monkeypatch: pytest.MonkeyPatch, error: Exception, permanent: bool
) -> None:
    reads = 0

    def verify(digest: str) -> None:
        nonlocal reads
        reads += 1
        raise error

    monkeypatch.setattr(pod.store, "verify", verify)
    pod.stop_clock()
    adapter = pod.publish()
    pod.agent.accept(pod.share(adapter))
    await pod.until(lambda: pod.failed(adapter) == "ArtifactDamaged")
    assert pod.revision(adapter)["failed"]["permanent"] == permanent
    for tries in (1, 2, 3):  # a pause, another that is longer, and in each of them many rounds
        await pod.until(lambda tries=tries: reads >= tries)  # type: ignore[misc]
        await pod.looks(10)
        assert reads == tries
        pod.pass_time(LONGEST_PAUSE)


async def test_a_probe_of_a_later_kind_is_not_asked_and_not_for_good(pod: Pod) -> None:
    adapter = pod.publish()
    pod.agent.accept(pod.share(adapter, probe={"kind": "Embedding", "prompt": "x"}))
    await pod.until(lambda: pod.failed(adapter) == "NotSupported")
    assert not pod.revision(adapter)["failed"]["permanent"]
    pod.agent.accept(pod.share(adapter, probe={"kind": "Completion", "prompt": "x"}))
    await pod.until(lambda: pod.proven(adapter))


async def test_a_slow_fetch_delays_no_other_revision(pod: Pod, monkeypatch: pytest.MonkeyPatch) -> None:
    slow, quick = pod.publish(), pod.publish()
    fetch, released = AdapterStore.fetch, threading.Event()

    def slowly(store: AdapterStore, uri: str, digest: str) -> Path:
        if digest == slow.digest:
            assert released.wait(PATIENCE_SECONDS)
        return fetch(store, uri, digest)

    monkeypatch.setattr(AdapterStore, "fetch", slowly)
    pod.agent.accept(pod.share(slow, quick))
    await pod.until(lambda: pod.proven(quick))
    assert not pod.revision(slow)["verified"]
    released.set()
    await pod.until(lambda: pod.proven(slow))


async def test_a_pod_may_have_to_wait_for_its_first_document(tmp_path: Path) -> None:
    async with running(tmp_path) as pod:
        assert await pod.ready()
        await pod.kill_agent()
        pod.options = {"require_share": True}
        await pod.start_agent()
        await pod.until_ready(False)
        adapter = pod.publish()
        pod.agent.accept(pod.share(adapter))
        await pod.until_ready()


@pytest.mark.parametrize("took", [0.0, 0.3], ids=["soon", "slowly"])
async def test_changes_of_the_truth_wake_those_who_wait(pod: Pod, took: float, monkeypatch: pytest.MonkeyPatch) -> None:
    models = VLLM.models

    async def slowly(engine: VLLM) -> tuple[ServedModel, ...]:
        await asyncio.sleep(took)
        return await models(engine)

    monkeypatch.setattr(VLLM, "models", slowly)
    adapter = pod.publish()
    version = await pod.at_rest()
    waiting = asyncio.create_task(pod.agent.wait_for_change(version, 600))
    await pod.looks(2)
    assert not waiting.done()
    assert pod.agent.version == version
    pod.agent.accept(pod.share(adapter))
    await asyncio.wait_for(waiting, PATIENCE_SECONDS)
    assert pod.agent.version > version


async def test_a_share_of_which_nothing_changed_is_answered_as_before(pod: Pod) -> None:
    """Two hundred agents look at twenty rollouts each second: what is told of one is made when it changes."""
    one, two = pod.publish(), pod.publish()
    await pod.serve(one, rollout="one")
    await pod.serve(two, rollout="two")
    await pod.at_rest()
    before, again = pod.agent.truth(), pod.agent.truth()
    assert all(now is then for now, then in zip(again.rollouts, before.rollouts, strict=True))
    pod.agent.accept(pod.share(two, rollout="two"))
    after = pod.agent.truth()
    assert after.rollouts[0] is before.rollouts[0]
    assert (dict(before.rollouts[1].aliases["two"].to), dict(after.rollouts[1].aliases)) == ({two.name("two"): 100}, {})
    await pod.server.stop()
    await pod.until(lambda: not pod.agent.truth().rollouts[0].revisions[0].loaded)


async def test_an_alias_that_takes_the_place_of_another_is_told_by_its_own_name(pod: Pod) -> None:
    """Of two that point at one revision all that is known is the same, but for the name."""
    adapter = pod.publish()
    await pod.serve(adapter)
    entry = pod.agent._volume.table.aliases["guide"]
    to = {adapter.name("guide"): 100}
    share = pod.share(adapter, aliases={"guide": to, "guide-2": to})
    for only in ("guide", "guide-2"):
        pod.agent._volume.write(AliasTable({only: entry}))
        assert set(pod.agent.truth_of(share).aliases) == {only}
