"""What is remembered of Jobs and pods that are gone, and for how long, in virtual time."""

from __future__ import annotations

import asyncio
import weakref
from dataclasses import fields, replace

import pytest
from trimtab_operator.domain.cluster import Key
from trimtab_operator.domain.views import PODS_MAXIMUM, JobView, PodView
from trimtab_operator.runtime.cluster import departed
from trimtab_operator.runtime.cluster.departed import KEPT_SECONDS, Departed
from trimtab_operator.runtime.rounds.workqueue import LONGEST_DELAY_SECONDS

from tests.unit.runtime.objects import NAMESPACE, job, pod
from tests.unit.runtime.virtual_time import run

KEY = Key("FineTuneJob", NAMESPACE, "demo")


def a_job(number: int, owner: str = "demo") -> JobView:
    view = JobView.of(job(f"job-{number}", f"uid-{number}"))
    assert view is not None
    return replace(view, owner_name=owner, complete=True)


def a_pod(number: int, index: int = 0, job_uid: str = "job-1") -> PodView:
    view = PodView.of(pod(f"pod-{number}", f"uid-{number}"))
    assert view is not None
    return replace(view, index=index, job_uid=job_uid, phase="Succeeded", terminated=True)


class Watched(JobView):
    """A view of which can be told when nobody holds it any more."""


def test_each_is_forgotten_in_its_own_time_though_others_of_the_same_go_later() -> None:
    async def told() -> tuple[list[str], list[int]]:
        gone = Departed()
        for number in range(3):
            gone.job(a_job(number))
            gone.pod(a_pod(number, number))
            await asyncio.sleep(0.4 * KEPT_SECONDS)
        return [each.uid for each in gone.jobs_of(KEY)], [each.index for each in gone.pods_of("job-1", ())]

    assert run(told()) == (["uid-1", "uid-2"], [1, 2])


def test_the_last_pod_of_each_index_is_kept_and_of_so_many_jobs_the_last() -> None:
    async def told() -> tuple[list[str], list[str]]:
        gone = Departed()
        for number in range(5000):
            gone.job(a_job(number))
            gone.pod(a_pod(number, number % 3))
        return [each.uid for each in gone.jobs_of(KEY)], [each.uid for each in gone.pods_of("job-1", ())]

    jobs, pods = run(told())
    assert jobs == [f"uid-{number}" for number in range(5000 - departed.JOBS_AT_MOST, 5000)]
    assert pods == ["uid-4997", "uid-4998", "uid-4999"]


def test_there_is_a_bound_for_whatever_pods_say_of_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(departed, "KEPT_AT_MOST", 4)

    async def told() -> None:
        gone = Departed()
        for number in range(PODS_MAXIMUM + 500):
            gone.pod(a_pod(number, number))
        assert len(gone.pods_of("job-1", ())) == PODS_MAXIMUM
        for number in range(8):
            gone.job(a_job(number, f"of-{number}"))
        assert [bool(gone.jobs_of(KEY._replace(name=f"of-{number}"))) for number in range(8)] == [False] * 4 + [
            True
        ] * 4

    run(told())


def test_what_nobody_asks_for_any_more_goes_when_something_comes() -> None:
    async def told() -> tuple[object, object]:
        view = a_job(1, "one")
        gone, first = Departed(), Watched(**{each.name: getattr(view, each.name) for each in fields(view)})
        gone.job(first)
        seen = weakref.ref(first)
        del first
        assert seen() is not None
        await asyncio.sleep(KEPT_SECONDS + 1)
        gone.job(a_job(2, "two"))
        return seen(), gone.jobs_of(KEY._replace(name="one"))

    assert run(told()) == (None, ())


def test_it_is_kept_for_longer_than_who_failed_again_and_again_waits_for_the_next_round() -> None:
    assert KEPT_SECONDS > 2 * LONGEST_DELAY_SECONDS
