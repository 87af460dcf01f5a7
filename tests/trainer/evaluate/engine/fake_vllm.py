"""A command that is started as vLLM is, and does what vLLM does only when something is wrong.

Where nothing is wrong it answers with the last tokens of the prompt, then with the end of the turn; that its requests
and replies are vLLM's is shown by tests/engine/test_asked.py, where the real one takes its place.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socketserver
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

FAULT = "FAKE_VLLM_FAULT"
SEEN = "FAKE_VLLM_SEEN"
"""In the environment: a file that every request's body is written to, and first arguments and environment."""
VERSION = "FAKE_VLLM_VERSION"
ECHOED = 3
END = 2

KNOWN = ", ".join(f"'Model{number}ForCausalLM'" for number in range(600))
UNSUPPORTED = f"""(APIServer pid=1) Traceback (most recent call last):
(APIServer pid=1)   File "vllm/config/model.py", line 1, in <module>
(APIServer pid=1) pydantic_core._pydantic_core.ValidationError: 1 validation error for ModelConfig
(APIServer pid=1)   Value error, Model architectures ['OddForCausalLM'] are not supported for now. \
Supported architectures: dict_keys([{KNOWN}]) [type=value_error, input_value=ArgsKwargs]
"""
NO_ROOM = """(EngineCore pid=2) ERROR torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB.
(APIServer pid=1) RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}
"""
SMALL_CACHE = """(EngineCore pid=2) ValueError: To serve at least one request with the models's max seq len (4096), \
3 GiB KV cache is needed, which is larger than the available KV cache memory (1 GiB).
(APIServer pid=1) RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}
"""
BROKEN = """(EngineCore pid=2) FileNotFoundError: [Errno 2] No such file or directory: 'kernels'
(APIServer pid=1) RuntimeError: Engine core initialization failed. See root cause above. Failed core proc(s): {}
"""
LAST_WORDS = {"unsupported": UNSUPPORTED, "no room": NO_ROOM, "small cache": SMALL_CACHE, "broken": BROKEN}


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    request_queue_size = 256


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    lock = threading.Lock()

    def address_string(self) -> str:
        return "socket"

    def do_GET(self) -> None:
        self.reply(200, {})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if seen := os.environ.get(SEEN):
            with self.lock, Path(seen).open("a") as opened:
                opened.write(json.dumps(body) + "\n")
        match os.environ.get(FAULT):
            case "dies":
                # Of all the requests that meet it, one says so and ends it: vLLM has one core that can die.
                with self.lock:
                    print("(EngineCore pid=2) ERROR RuntimeError: the device was lost", flush=True)
                    os._exit(1)
            case "is killed":
                os.kill(os.getpid(), signal.SIGKILL)
            case "hangs":
                time.sleep(600)
            case "400":
                self.reply(400, {"error": {"message": "This model's maximum context length is\n16 tokens."}})
            case "500":
                self.reply(500, {"error": {"message": "EngineCore encountered an issue"}})
            case "500 of no words":
                self.reply(500, None)
            case "no answer":
                self.reply(200, {"choices": []})
            case "aborts":
                self.reply(200, {"choices": [{"token_ids": [5], "finish_reason": "abort"}]})
            case "breaks off":
                self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{")
                self.close_connection = True
            case _:
                self.answer(body)

    def answer(self, body: dict[str, Any]) -> None:
        tokens = [*body["prompt"][-ECHOED:], END][: body["max_tokens"]]
        ended = "stop" if tokens[-1] in body["stop_token_ids"] else "length"
        self.reply(200, {"choices": [{"token_ids": tokens, "finish_reason": ended}]})

    def reply(self, status: int, document: Any) -> None:
        data = json.dumps(document).encode() if document is not None else b"<html>"
        self.send_response(status)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


def main() -> None:
    fault = os.environ.get(FAULT, "")
    if sys.argv[1:] == ["--version"]:
        if fault == "cannot be loaded":
            sys.exit("Traceback (most recent call last):\nImportError: libcuda.so.1: cannot open shared object file")
        print("INFO 01-01 00:00:00 a plugin has been loaded")
        print(os.environ.get(VERSION, "0.0.0+fake"))
        return
    if seen := os.environ.get(SEEN):
        Path(seen).write_text(json.dumps({"arguments": sys.argv[1:], "environment": dict(os.environ)}) + "\n")
    if fault in LAST_WORDS:
        print(LAST_WORDS[fault], flush=True)
        sys.exit(1)
    if fault == "is killed at once":
        os.kill(os.getpid(), signal.SIGKILL)
    if fault == "says nothing":
        time.sleep(600)
    if fault == "does not want to end":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        Path(os.environ[SEEN]).write_text(json.dumps([os.getpid(), child.pid]))
    given = argparse.ArgumentParser()
    given.add_argument("--uds", required=True)
    options, _ = given.parse_known_args()
    Server(options.uds, Handler).serve_forever()


if __name__ == "__main__":
    main()
