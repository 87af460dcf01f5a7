"""What a stage tells while it runs: `GET /progress` for the operator, `GET /metrics` for Prometheus.

`ProgressBoard` holds the newest figures; the stages write them, `ProgressServer` shows them from a daemon thread.
Standard library and prometheus_client only, so `prepare` uses it too.
"""

from __future__ import annotations

import contextlib
import json
import socket
import sys
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, generate_latest

from .contract import Progress, Stage


class ProgressBoard:
    """The newest figures of a stage, safe to read from another thread, and the same as Prometheus metrics."""

    def __init__(self, run_uid: str, attempt: int, stage: Stage, activity: str = "Starting") -> None:
        self._lock = threading.Lock()
        self._progress = Progress(run_uid=run_uid, attempt=attempt, stage=stage, activity=activity)
        self.watcher: Callable[[Progress], None] | None = None
        """Is told every figure, on the thread of the stage."""
        self.registry = CollectorRegistry()

        def gauge(name: str, help_text: str) -> Gauge:
            return Gauge(f"trimtab_trainer_{name}", help_text, registry=self.registry)

        self._gauges = {
            "step": gauge("step", "Optimizer steps done."),
            "total_steps": gauge("steps", "Optimizer steps of the whole run."),
            "loss": gauge("loss", "Training loss in nats per supervised token, over the newest steps."),
            "validation_loss": gauge("validation_loss", "Validation loss in nats per supervised token."),
            "tokens_per_second": gauge("tokens_per_second", "Tokens of training sequences, over the newest steps."),
            "checkpoint_step": gauge("checkpoint_step", "Step of the newest checkpoint in object storage."),
        }
        self._preference = {
            "accuracy": gauge("reward_accuracy", "Share of pairs whose chosen answer has more reward, newest steps."),
            "margin": gauge("reward_margin", "Reward of wanted answers minus that of the others, newest steps."),
        }
        self.learning_rate = gauge("learning_rate", "Learning rate of the newest step.")
        self.gradient_norm = gauge("gradient_norm", "Global norm of the newest gradient, before clipping.")
        self.micro_batch = gauge("micro_batch_sequences", "Sequences of one forward pass.")
        self.memory = gauge("accelerator_memory_peak_bytes", "Most memory of the accelerator that tensors took.")
        self.tokens = self._counter("tokens", "Tokens of training sequences, this attempt.")
        self.supervised_tokens = self._counter("supervised_tokens", "Tokens with a loss, this attempt.")
        self.checkpoints = self._counter("checkpoints", "Checkpoints written, this attempt.")
        self.checkpoint_seconds = self._counter("checkpoint_seconds", "Time from snapshot to manifest.")
        self.checkpoint_failures = self._counter("checkpoint_failures", "Checkpoints that storage did not take.")
        self.evaluation_seconds = self._counter("evaluation_seconds", "Time of validation.")

    def _counter(self, name: str, help_text: str) -> Counter:
        return Counter(f"trimtab_trainer_{name}", help_text, registry=self.registry)

    def update(self, **figures: Any) -> None:
        """Set fields of the contract's `Progress`: activity, step, loss, ..."""
        with self._lock:
            self._progress = told = self._progress.model_copy(update=figures)
        if self.watcher is not None:
            self.watcher(told)
        for name, value in figures.items():
            if name in self._gauges and value is not None:
                self._gauges[name].set(value)
        if (preference := figures.get("preference")) is not None:
            for name, each in self._preference.items():
                if (value := getattr(preference, name)) is not None:
                    each.set(value)

    def checkpointed(self, step: int) -> None:
        """Note that a checkpoint of this step is whole in object storage, now."""
        now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        self.update(checkpoint_step=step, checkpoint_time=now)

    def read(self) -> Progress:
        """Return the newest figures."""
        with self._lock:
            return self._progress


class _Server(ThreadingHTTPServer):
    """Says nothing of clients that went away before they had their answer."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class _EveryAddress(_Server):
    """Listens on IPv6 and IPv4 alike: a pod may have either."""

    address_family = socket.AF_INET6

    def server_bind(self) -> None:
        self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        super().server_bind()


def _listen(host: str, port: int, handler: type[BaseHTTPRequestHandler]) -> _Server:
    if not host and socket.has_dualstack_ipv6():
        with contextlib.suppress(OSError):  # IPv6 may be switched off; a port that is taken fails again below
            return _EveryAddress((host, port), handler)
    return _Server((host, port), handler)


class ProgressServer:
    """Answers `/progress` (JSON) and `/metrics` (Prometheus text) until closed.

    Host "" means every address of the pod, port 0 a free one.
    """

    def __init__(self, host: str, port: int, board: ProgressBoard) -> None:
        class Handler(BaseHTTPRequestHandler):
            timeout = 10

            def do_GET(self) -> None:
                if self.path == "/progress":
                    self._answer(json.dumps(board.read().to_json()).encode(), "application/json")
                elif self.path == "/metrics":
                    self._answer(generate_latest(board.registry), CONTENT_TYPE_LATEST)
                else:
                    self.send_error(404)

            def _answer(self, body: bytes, content_type: str) -> None:
                self.send_response(200)
                self.send_header("Content-Type", content_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 its name in the base class
                """Say nothing: it is polled every few seconds."""

        self._server = _listen(host, port, Handler)
        self.port: int = self._server.server_address[1]
        threading.Thread(target=self._server.serve_forever, name="progress", daemon=True).start()

    def close(self) -> None:
        """Stop answering and free the port."""
        self._server.shutdown()
        self._server.server_close()

    def __enter__(self) -> ProgressServer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
