"""The cache: whatever comes in whatever order, the newest is kept and nothing deleted comes back."""

from __future__ import annotations

import asyncio
import itertools

import pytest
from trimtab_operator.domain.cluster import Key
from trimtab_operator.domain.views import JOB_LABEL
from trimtab_operator.runtime import metrics
from trimtab_operator.runtime.cluster.cache import TOMBSTONE_SECONDS, Cache, slim
from trimtab_operator.runtime.pods.agentpoller import agents_port

from tests.unit.runtime.objects import NAMESPACE, finetunejob, job, pod
from tests.unit.runtime.serving import rollout, serving_pod
from tests.unit.runtime.virtual_time import run

KEY = Key("FineTuneJob", NAMESPACE, "demo")


async def test_a_change_concerns_the_finetunejob() -> None:
    cache = Cache()
    assert cache.owners["FineTuneJob"].put(finetunejob()) == KEY
    assert cache.jobs.put(job()) == KEY
    assert cache.pods.put(pod()) == KEY
    assert [view.name for view in cache.jobs_of(KEY)] == ["demo-train-1"]
    assert [view.name for view in cache.pods.of_parent("job-1")] == ["demo-train-1-x"]


async def test_what_is_known_concerns_no_one() -> None:
    cache = Cache()
    assert cache.jobs.put(job(version=7)) == KEY
    assert cache.jobs.put(job(version=7)) is None


@pytest.mark.parametrize("order", list(itertools.permutations([5, 6, 10])))
async def test_only_newer_replaces(order: tuple[int, ...]) -> None:
    cache = Cache()
    for version in order:
        cache.jobs.put(job(version=version))
    entry = cache.jobs.of_uid("job-1")
    assert entry is not None
    assert entry.version == 10  # as a number: "9" > "10" as text


async def test_what_was_deleted_does_not_come_back() -> None:
    cache = Cache()
    cache.jobs.put(job(version=5))
    assert cache.jobs.remove("job-1") == KEY
    assert cache.jobs.put(job(version=6)) is None
    assert cache.jobs_of(KEY) == []


async def test_a_deletion_may_come_before_the_object() -> None:
    cache = Cache()
    assert cache.jobs.remove("job-1") is None
    assert cache.jobs.put(job()) is None
    assert len(cache.jobs) == 0


async def test_another_object_of_the_name_replaces_the_first_and_not_the_other_way_round() -> None:
    cache = Cache()
    cache.owners["FineTuneJob"].put(finetunejob(uid="first", version=5))
    assert cache.owners["FineTuneJob"].put(finetunejob(uid="second", version=9)) == KEY
    assert cache.owners["FineTuneJob"].put(finetunejob(uid="first", version=6)) is None
    entry = cache.owners["FineTuneJob"].named(NAMESPACE, "demo")
    assert entry is not None
    assert entry.uid == "second"
    assert cache.owners["FineTuneJob"].remove("first") is None
    assert cache.owners["FineTuneJob"].named(NAMESPACE, "demo") is not None


async def test_a_job_is_found_by_whose_it_says_it_is_and_tells_who_controls_it() -> None:
    cache = Cache()
    cache.jobs.put(job(owner="first"))
    (view,) = cache.jobs_of(KEY)
    assert view.owner_uid == "first"


@pytest.mark.parametrize("lost", ["owner", "labels", "both", "taken by another controller"])
async def test_what_a_job_has_lost_its_pods_labels_still_say(lost: str) -> None:
    body = job()
    said = {**body["metadata"]["labels"], JOB_LABEL: "demo"}
    body["spec"] = {"template": {"metadata": {"labels": said}}}
    if lost in ("owner", "both"):
        body["metadata"]["ownerReferences"] = []
    if lost in ("labels", "both"):
        body["metadata"]["labels"] = {}
    if lost == "taken by another controller":
        body["metadata"]["ownerReferences"][0] |= {"kind": "CronJob", "name": "night"}
    cache = Cache()
    assert cache.jobs.put(body) == KEY
    (view,) = cache.jobs_of(KEY)
    assert (view.stage, view.attempt, view.owner_uid) == ("train", 1, "ftj-1" if lost == "labels" else "")
    assert view.managed == (lost not in ("labels", "both"))


async def test_what_left_its_selection_and_is_read_by_name_is_there() -> None:
    cache = Cache()
    cache.jobs.put(job(version=5))
    cache.jobs.remove("job-1", 7)
    assert cache.jobs.put(job(version=6)) is None
    assert cache.jobs.put(job(version=7)) == KEY


async def test_managed_fields_are_not_kept_and_states_are_counted() -> None:
    cache = Cache()
    condition = {"type": "Succeeded", "status": "True", "reason": "Completed"}
    cache.owners["FineTuneJob"].put(finetunejob(conditions=[condition]))
    cache.owners["FineTuneJob"].put(finetunejob(name="other", uid="ftj-2"))
    entry = cache.owners["FineTuneJob"].named(NAMESPACE, "demo")
    assert entry is not None
    assert entry.view is not None
    assert "managedFields" not in entry.view.body["metadata"]
    assert cache.states("FineTuneJob") == {"Completed": 1, "New": 1}


async def test_an_object_that_is_none_of_ours_is_known_and_concerns_no_one() -> None:
    cache = Cache()
    body = job()
    del body["metadata"]["labels"]
    assert cache.jobs.put(body) is None
    assert cache.jobs.of_uid("job-1") is not None
    assert cache.jobs.remove("job-1") is None


async def test_what_lost_its_label_comes_back_with_it_and_what_is_gone_does_not() -> None:
    cache = Cache()
    cache.serving.put(serving_pod(version=3))
    uid = serving_pod()["metadata"]["uid"]
    cache.serving.remove(uid, 5)
    cache.serving.put(serving_pod(version=4))
    assert cache.serving.of_uid(uid) is None, "reported late"
    cache.serving.put(serving_pod(version=6))
    cache.serving.remove(uid, 5)
    assert cache.serving.of_uid(uid) is not None, "its departure is reported late"
    cache.serving.remove(uid)
    cache.serving.remove(uid, 8)
    cache.serving.put(serving_pod(version=9))
    assert cache.serving.of_uid(uid) is None


def test_tombstones_are_not_kept_for_ever() -> None:
    async def story() -> None:
        cache = Cache()
        cache.jobs.remove("job-1")
        await asyncio.sleep(TOMBSTONE_SECONDS + 1)
        cache.jobs.remove("job-2")
        assert not cache.jobs.left("job-1", 1)
        assert cache.jobs.left("job-2", 1)

    run(story())


HOSTILE: dict[str, dict[str, object]] = {
    "an attempt that is no number": {"labels": {"trimtab.dev/stage": "train", "trimtab.dev/attempt": "x"}},
    "an attempt of other digits": {"labels": {"trimtab.dev/stage": "train", "trimtab.dev/attempt": "١"}},
    "an attempt after which there is none": {
        "labels": {"trimtab.dev/stage": "train", "trimtab.dev/attempt": "1000000"}
    },
    "an attempt without an end": {"labels": {"trimtab.dev/stage": "train", "trimtab.dev/attempt": "9" * 5000}},
    "no labels": {"labels": None},
    "no owner": {"ownerReferences": None},
}


@pytest.mark.parametrize("metadata", HOSTILE.values(), ids=HOSTILE)
async def test_a_tenants_job_that_is_none_of_ours_stops_nobody(metadata: dict[str, object]) -> None:
    """One such Job ended the first list, and with it the leader, for the whole cluster."""
    cache = Cache()
    body = job()
    body["metadata"] |= metadata
    assert cache.jobs.put(body) is None
    assert cache.jobs.put(job("demo-train-2", "job-2")) == KEY


async def test_what_no_view_can_be_made_of_is_counted_and_left_out() -> None:
    cache = Cache()
    before = metrics.UNREADABLE.labels("pods")._value.get()
    body = pod()
    body["status"] = {"phase": "Running", "conditions": [{"no": "type"}]}
    assert cache.pods.put(body) is None
    assert metrics.UNREADABLE.labels("pods")._value.get() == before + 1
    assert cache.pods.put(pod(version=2)) == KEY


async def test_times_of_tenants_are_no_times() -> None:
    body = job()
    body["status"] = {"conditions": [{"type": "Failed", "status": "True", "lastTransitionTime": "yesterday"}]}
    cache = Cache()
    cache.jobs.put(body)
    (view,) = cache.jobs_of(KEY)
    assert (view.failed, view.ended) == (True, None)


async def test_a_label_by_which_a_tool_tracks_here_is_kept_before_all_others() -> None:
    """By it an object that has ended is known to come again, and stays."""
    cache = Cache(tracking=("team.example/app",))
    body = finetunejob()
    body["metadata"]["labels"] = {f"label-{number}": "x" * 60 for number in range(10_000)}
    body["metadata"]["labels"]["team.example/app"] = "models"
    cache.owners["FineTuneJob"].put(body)
    stored = cache.stored(KEY)
    assert stored is not None
    assert stored.body["metadata"]["labels"]["team.example/app"] == "models"
    assert stored.labels["team.example/app"] == "models"


async def test_of_annotations_and_labels_only_what_is_read_is_kept() -> None:
    cache = Cache()
    body = finetunejob()
    body["metadata"]["annotations"] = {
        "kubectl.kubernetes.io/last-applied-configuration": "x" * 250_000,
        "argocd.argoproj.io/tracking-id": "y" * 250_000,
        "kueue.x-k8s.io/podset-required-topology": "cloud/rack",
        "provreq.kueue.x-k8s.io/maxRunDurationSeconds": "600",
        "kueue.x-k8s.io/a-part-of-it-would-be-another": "z" * 5_000,
    }
    body["metadata"]["labels"] = {f"label-{number}": "x" for number in range(10_000)}
    body["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] = "gpus"
    body["metadata"]["labels"]["kustomize.toolkit.fluxcd.io/name"] = "models"
    cache.owners["FineTuneJob"].put(body)
    stored = cache.stored(KEY)
    assert stored is not None
    assert len(stored.text) < 5_000
    kept = stored.body["metadata"]
    assert kept["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"
    assert kept["labels"]["kustomize.toolkit.fluxcd.io/name"] == "models"
    assert kept["annotations"] == {
        "argocd.argoproj.io/tracking-id": "",
        "kueue.x-k8s.io/podset-required-topology": "cloud/rack",
        "provreq.kueue.x-k8s.io/maxRunDurationSeconds": "600",
    }


async def test_of_finalizers_that_is_kept_which_says_that_children_stay() -> None:
    body = finetunejob()
    body["metadata"]["finalizers"] = ["backup.example/hold", "orphan"]
    assert "finalizers" not in slim(body)["metadata"], "it is not deleted"
    body["metadata"]["deletionTimestamp"] = "2026-01-05T12:00:00Z"
    assert slim(body)["metadata"]["finalizers"] == ["orphan"]


async def test_what_is_asked_of_a_rollout_all_the_time_is_read_once_a_version(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each scrape asks all rollouts how many pods are ready, each question to a pod asks them for the port."""
    cache, reads = Cache(), list[bytes]()
    for name, ready in (("one", 2), ("two", 1)):
        body = rollout(port=9000, pods={"ready": ready, "desired": 2, "updated": 2})
        body["metadata"] |= {"name": name, "uid": name, "resourceVersion": "5"}
        cache.owners["AdapterRollout"].put(body)
    cache.serving.put(serving_pod())
    monkeypatch.setattr("trimtab_operator.runtime.cluster.cache.orjson.loads", reads.append)
    (view,) = cache.serving.of_parent(serving_pod()["metadata"]["namespace"])
    for _ in range(3):
        assert cache.pods_served() == (3, 4)
        assert [agents_port(stored) for stored in cache.served_by(view)] == [9000, 9000]
    assert reads == []


@pytest.mark.parametrize("told", ["two", None, {"of": 2}, [2]])
async def test_counts_of_pods_that_a_later_version_writes_otherwise_hide_no_rollout(told: object) -> None:
    cache = Cache()
    body = rollout(pods={"ready": told, "desired": told})
    body["metadata"] |= {"uid": "one", "resourceVersion": "5"}
    cache.owners["AdapterRollout"].put(body)
    assert cache.pods_served() == (0, 0)
    (entry,) = cache.owners["AdapterRollout"]
    assert entry.view is not None
