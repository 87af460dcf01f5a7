"""Progress over HTTP: the contract's JSON and Prometheus metrics."""

from __future__ import annotations

import json
import socket
import struct
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator

import pytest
from prometheus_client import Gauge
from trimtab_trainer.contract import Progress, Stage
from trimtab_trainer.progress import ProgressBoard, ProgressServer


@pytest.fixture
def served() -> Iterator[tuple[ProgressBoard, str]]:
    board = ProgressBoard("uid-1", 3, Stage.TRAIN)
    with ProgressServer("127.0.0.1", 0, board) as server:
        yield board, f"http://127.0.0.1:{server.port}"


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=60) as response:
        text: str = response.read().decode()
        return text


def test_progress_is_the_contracts_json_with_uid_and_attempt(served: tuple[ProgressBoard, str]) -> None:
    board, url = served
    board.update(activity="Training", step=7, total_steps=70, loss=1.25)
    board.checkpointed(5)
    answer = Progress.model_validate(json.loads(get(f"{url}/progress")))
    assert (answer.run_uid, answer.attempt, answer.activity, answer.step) == ("uid-1", 3, "Training", 7)
    assert answer.checkpoint_step == 5
    assert answer.checkpoint_time is not None
    assert answer.checkpoint_time.endswith("Z")


def test_metrics_are_prometheus_with_the_prefix(served: tuple[ProgressBoard, str]) -> None:
    board, url = served
    board.update(step=7, total_steps=70, loss=1.25, validation_loss=1.5, tokens_per_second=99.0)
    board.tokens.inc(1000)
    board.learning_rate.set(0.0002)
    lines = get(f"{url}/metrics").splitlines()
    assert all(line.startswith(("#", "trimtab_trainer_")) for line in lines)
    for line in (
        "trimtab_trainer_step 7.0",
        "trimtab_trainer_steps 70.0",
        "trimtab_trainer_loss 1.25",
        "trimtab_trainer_validation_loss 1.5",
        "trimtab_trainer_tokens_per_second 99.0",
        "trimtab_trainer_tokens_total 1000.0",
        "trimtab_trainer_learning_rate 0.0002",
    ):
        assert line in lines


def test_other_paths_are_not_found(served: tuple[ProgressBoard, str]) -> None:
    with pytest.raises(urllib.error.HTTPError) as caught:
        get(f"{served[1]}/etc/passwd")
    assert caught.value.code == 404
    caught.value.close()


def test_two_boards_do_not_share_metrics() -> None:
    one, other = (ProgressBoard("uid", 0, Stage.TRAIN) for _ in range(2))
    one.update(step=3)
    assert other.registry.get_sample_value("trimtab_trainer_step") == 0.0


def test_every_address_of_a_pod_answers() -> None:
    board = ProgressBoard("uid", 0, Stage.TRAIN)
    with ProgressServer("", 0, board) as server:
        hosts = ["127.0.0.1", *(["[::1]"] if socket.has_dualstack_ipv6() else [])]
        for host in hosts:
            with urllib.request.urlopen(f"http://{host}:{server.port}/progress", timeout=60) as answer:
                assert json.loads(answer.read())["runUid"] == "uid"


def test_a_client_that_goes_away_is_no_matter_for_the_log(capfd: pytest.CaptureFixture[str]) -> None:
    board = ProgressBoard("uid-1", 3, Stage.TRAIN)
    for index in range(5000):  # more than the buffers of a connection hold
        Gauge(f"padding_{index}", "x" * 400, registry=board.registry)
    others = set(threading.enumerate())  # servers of other tests keep theirs as long as a client keeps its connection
    with ProgressServer("127.0.0.1", 0, board) as server:
        for request in (b"GET /metrics HTTP/1.0\r\n\r\n", b"GET /metr", b"\xff\xfe\r\n\r\n"):
            client = socket.create_connection(("127.0.0.1", server.port))
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset, not an end
            client.sendall(request)
            client.close()
        get(f"http://127.0.0.1:{server.port}/progress")
        for thread in set(threading.enumerate()) - others:
            if "process_request" in thread.name:
                thread.join(timeout=60)
                assert not thread.is_alive()
    assert capfd.readouterr() == ("", "")
