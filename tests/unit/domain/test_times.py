"""Times as others write them: what is none is left out, and nothing is charged for it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from trimtab_operator.domain.views import PodView, parse_time

from tests.unit.domain.makers import World


@pytest.mark.parametrize(
    "text",
    [
        "",
        "yesterday",
        None,
        7,
        "0001-01-01T00:00:00Z",
        "1970-01-01T00:00:00Z",
        "9999-12-31T23:59:59Z",
        "9999-12-31T23:59:59-23:59",
    ],
)
def test_what_is_no_time(text: object) -> None:
    assert parse_time(text) is None


@pytest.mark.parametrize(
    "text", ["2026-01-05T12:00:00Z", "2026-01-05T14:00:00+02:00", "2026-01-05T12:00:00", "2026-01-05T12:00:00.000000Z"]
)
def test_times_are_in_utc(text: str) -> None:
    found = parse_time(text)
    assert (found, found and found.tzinfo) == (datetime(2026, 1, 5, 12, tzinfo=UTC), UTC)


def never_started(said: str) -> dict[str, Any]:
    """Return a pod as the kubelet tells of it whose container the runtime could not start."""
    return {
        "metadata": {
            "namespace": "team",
            "name": "demo-train-1-x",
            "uid": "pod-1",
            "labels": {"trimtab.dev/finetunejob": "demo"},
            "creationTimestamp": "2026-01-05T12:00:20Z",
            "ownerReferences": [{"kind": "Job", "name": "demo-train-1", "uid": "job-1", "controller": True}],
        },
        "spec": {"nodeName": "node-1"},
        "status": {
            "phase": "Failed",
            "containerStatuses": [
                {
                    "name": "trainer",
                    "state": {
                        "terminated": {
                            "exitCode": 128,
                            "reason": "StartError",
                            "message": said,
                            "startedAt": "1970-01-01T00:00:00Z",
                            "finishedAt": "2026-01-05T12:00:25Z",
                        }
                    },
                }
            ],
        },
    }


def test_a_container_that_never_started_has_run_for_no_time() -> None:
    """Of one that the runtime cannot start, the kubelet tells that it began in 1970."""
    words = "failed to create containerd task: failed to create shim task: OCI runtime create failed"
    world = World(activeDeadlineSeconds=3600).settle().prepared()
    body = never_started(words)
    body["metadata"]["ownerReferences"][0].update(name=world.current.name, uid=world.current.uid)
    view = PodView.of(body)
    assert view is not None
    world.pods.append(view)
    world.after(5).change_job(failed=True, ended=world.now, failed_reason="BackoffLimitExceeded").settle()
    assert world.state == "Retrying"
    assert words in world.message
    status = world.job.status
    assert (status.active_seconds, status.accelerator_seconds, status.failures) == (20, 0, 1)
    assert status.attempts[-1].start_time is None


@pytest.mark.parametrize("time", ["9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z", "1970-01-01T00:00:00Z"])
def test_garbage_in_a_status_ends_no_round(time: str) -> None:
    """Whoever may write a status may write any time into it."""
    world = World(ttlSecondsAfterFinished=60).settle().prepared().running()
    attempts = [each.model_copy(update={"start_time": time, "end_time": time}) for each in world.job.status.attempts]
    world.job = world.job.model_copy(update={"status": world.job.status.model_copy(update={"attempts": attempts})})
    world.after(60).reports(step=50, checkpoint_step=40, checkpoint_time=time).after(60).published()
    assert world.state == "Completed"
    assert world.job.status.active_seconds < 3600
    ended = world.job.status.model_copy(update={"completion_time": time})
    world.job = world.job.model_copy(update={"status": ended})
    world.after(3600).settle()
    assert world.state == "Completed"
