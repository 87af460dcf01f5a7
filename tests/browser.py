"""Pages in a headless Chromium: what it draws, what it complains of, and whether it asks the network for anything.

Debian's `chromium-headless-shell`, which is installed where no Chromium is there. It is spoken to over two pipes, by
the DevTools protocol (https://chromedevtools.github.io/devtools-protocol/): JSON messages with a zero byte behind each.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trimtab_local import toolchain

PROGRAMS = ("chromium-headless-shell", "chromium")
PACKAGES = {
    "/usr/bin/chromium-headless-shell": "chromium-headless-shell",
    "/usr/share/fonts/truetype/dejavu/DejaVuSans.ttf": "fonts-dejavu-core",
}
SECONDS = 120
GONE = "Inspected target navigated or closed"
COMPLAINTS = ("Runtime.consoleAPICalled", "Runtime.exceptionThrown", "Log.entryAdded")


@dataclass(frozen=True)
class Opened:
    """What a page did.

    Attributes:
        complaints: messages on its console, errors of scripts, and what its policy refused.
        requests: addresses it asked for, but for its own and for data that it carries.
        width, height: of its content, in pixels; wider than its window, it has to be pushed to and fro.
        picture: a PNG of all of it.
    """

    complaints: tuple[str, ...]
    requests: tuple[str, ...]
    width: int
    height: int
    picture: Path


def program() -> str:
    """Return Chromium, after installing it where it is missing.

    Raises:
        Failed: it is not there, and apt does not install it.
    """
    found = [*filter(None, map(shutil.which, PROGRAMS))]
    if not found:
        toolchain.install(PACKAGES)
        found = [*filter(None, map(shutil.which, PROGRAMS))]
    return found[0]


def opened(page: Path | str, folder: Path, width: int = 1280, *, dark: bool = False) -> Opened:
    """Open a file or an address in a window of this width, with all its parts unfolded, and draw it into `folder`."""
    address = page if isinstance(page, str) else page.as_uri()
    picture = folder / f"{Path(address).stem}-{width}{'-dark' if dark else ''}.png"
    with browser(folder) as devtools:
        for domain in ("Page", "Runtime", "Log", "Network", "DOM"):
            devtools.ask(f"{domain}.enable")
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        devtools.ask("Emulation.setEmulatedMedia", features=[scheme])
        screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        devtools.ask("Emulation.setDeviceMetricsOverride", **screen)
        devtools.ask("Page.navigate", url=address)
        devtools.wait("Page.loadEventFired")
        size = devtools.ask("Page.getLayoutMetrics")["cssContentSize"]
        drawn = devtools.ask("Page.captureScreenshot", captureBeyondViewport=True, clip={**size, "scale": 1})
        picture.write_bytes(base64.b64decode(drawn["data"]))
        events = devtools.events
    asked = {e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"}
    return Opened(
        complaints=tuple(json.dumps(event["params"]) for event in events if event["method"] in COMPLAINTS),
        requests=tuple(sorted(url for url in asked - {address} if not url.startswith("data:"))),
        width=round(size["width"]),
        height=round(size["height"]),
        picture=picture,
    )


class Navigated(Exception):
    """The page went while it was asked: another one comes."""


class DevTools:
    """A conversation with one page."""

    def __init__(self, read: int, write: int) -> None:
        self._read, self._write = read, write
        self._deadline = 0.0
        self._buffer = b""
        self._number = 0
        self._session: dict[str, str] = {}
        self.events: list[dict[str, Any]] = []

    def attach(self) -> None:
        """Turn to the page that is open."""
        pages = [each for each in self.ask("Target.getTargets")["targetInfos"] if each["type"] == "page"]
        found = self.ask("Target.attachToTarget", targetId=pages[0]["targetId"], flatten=True)
        self._session = {"sessionId": found["sessionId"]}

    def ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._number += 1
        self._deadline = time.monotonic() + SECONDS
        message = {"id": self._number, "method": method, "params": parameters, **self._session}
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            told = self._next()
            if told.get("id") == self._number:
                if told.get("error", {}).get("message") == GONE:
                    raise Navigated(method)
                assert "error" not in told, told
                result: dict[str, Any] = told["result"]
                return result

    def wait(self, method: str) -> None:
        """Wait for an event of this kind, or be content with one that came before."""
        self._deadline = time.monotonic() + SECONDS
        while not any(event["method"] == method for event in self.events):
            self._next()

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            ready, _, _ = select.select([self._read], [], [], max(0.0, self._deadline - time.monotonic()))
            part = os.read(self._read, 1 << 20) if ready else b""
            assert part, "the browser does not answer"
            self._buffer += part
        text, _, self._buffer = self._buffer.partition(b"\0")
        told: dict[str, Any] = json.loads(text)
        if "method" in told:
            self.events.append(told)
        return told


@contextmanager
def browser(folder: Path) -> Iterator[DevTools]:
    """Yield a conversation with a new browser's only page."""
    command, answers = os.pipe(), os.pipe()
    options = (
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--hide-scrollbars",
        "--remote-debugging-pipe",
        "about:blank",
    )
    # It reads from descriptor 3 and writes to 4.
    shell = ["bash", "-c", f'exec 3<&{command[0]} 4>&{answers[1]}; exec "$@"', "bash", program(), *options]
    with (folder / "browser.log").open("wb") as log:
        process = subprocess.Popen(
            [*shell[:-1], f"--user-data-dir={folder / 'profile'}", shell[-1]],
            pass_fds=(command[0], answers[1]),
            env={**os.environ, "HOME": str(folder)},
            stdout=log,
            stderr=log,
        )
    try:
        os.close(command[0])
        os.close(answers[1])
        devtools = DevTools(answers[0], command[1])
        devtools.attach()
        yield devtools
    finally:
        process.kill()
        process.wait()
        os.close(command[1])
        os.close(answers[0])
