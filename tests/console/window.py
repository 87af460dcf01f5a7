"""A person at a browser: opens addresses, reads, clicks and types, and waits until what they look for is there."""

from __future__ import annotations

import base64
import contextlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.browser import COMPLAINTS, DevTools, Navigated, browser

SECONDS = 30.0


class Window:
    """One page of a headless Chromium. Every step's time is kept, in milliseconds."""

    def __init__(self, devtools: DevTools, home: str) -> None:
        self._devtools = devtools
        self.home = home
        self.times: list[tuple[str, float]] = []

    def visit(self, path: str, look_for: str = "document.body.dataset.ready === 'true'") -> None:
        """Open an address and wait until it is drawn and its scripts have begun."""
        began = time.perf_counter()
        self._devtools.ask("Page.navigate", url=path if path.startswith("http") else self.home + path)
        self.wait(f"document.readyState === 'complete' && ({look_for})")
        self.times.append((path.partition("?token=")[0], (time.perf_counter() - began) * 1000))

    def click(self, selector: str, look_for: str) -> None:
        """Click what a selector finds, and wait until an expression is true."""
        began = time.perf_counter()
        self.run(f"document.querySelector({json.dumps(selector)}).click()")
        self.wait(look_for)
        self.times.append((f"click {selector}", (time.perf_counter() - began) * 1000))

    def type(self, selector: str, text: str) -> None:
        self.run(f"document.querySelector({json.dumps(selector)}).focus()")
        self._devtools.ask("Input.insertText", text=text)

    def press(self, key: str) -> None:
        for kind in ("keyDown", "keyUp"):
            self._devtools.ask("Input.dispatchKeyEvent", type=kind, key=key, text=key if kind == "keyDown" else "")

    def run(self, expression: str) -> Any:
        """Return what an expression of JavaScript gives in the page."""
        told = self._devtools.ask("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in told, told["exceptionDetails"]
        return told["result"].get("value")

    def wait(self, expression: str) -> None:
        """Wait until an expression is true; while a page is replaced there is nothing to ask."""
        end = time.monotonic() + SECONDS
        while True:
            with contextlib.suppress(Navigated):  # as its docstring has it
                told = self._devtools.ask("Runtime.evaluate", expression=expression, returnByValue=True)
                if told["result"].get("value") is True:
                    return
            assert time.monotonic() < end, f"{expression} did not come: {self.text()[:2000]}"
            time.sleep(0.005)

    def text(self) -> str:
        return str(self.run("document.body ? document.body.innerText : ''"))

    def trust_everybody(self) -> None:
        """Take every certificate, as those of a test's own authority."""
        self._devtools.ask("Security.setIgnoreCertificateErrors", ignore=True)

    def inside(self, address: str) -> str:
        """Return the text of a frame within the page, whose address ends so, once it is there."""
        end = time.monotonic() + SECONDS
        while True:
            tree = self._devtools.ask("DOM.getDocument", depth=-1, pierce=True)["root"]
            if words := " ".join(_words(tree, address, inside=False)):
                return words
            assert time.monotonic() < end, f"no frame shows {address}"
            time.sleep(0.02)

    def size(self, width: int, *, dark: bool = False) -> None:
        screen = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self._devtools.ask("Emulation.setDeviceMetricsOverride", **screen)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._devtools.ask("Emulation.setEmulatedMedia", features=[scheme])

    def picture(self, file: Path, most: int = 2400) -> None:
        """Draw the page down to `most` pixels, into a PNG or, by the file's name, a WebP."""
        size = self._devtools.ask("Page.getLayoutMetrics")["cssContentSize"]
        clip = {**size, "height": min(size["height"], most), "scale": 1}
        form: dict[str, Any] = {"format": "webp", "quality": 82} if file.suffix == ".webp" else {"format": "png"}
        drawn = self._devtools.ask("Page.captureScreenshot", captureBeyondViewport=True, clip=clip, **form)
        file.write_bytes(base64.b64decode(drawn["data"]))

    def downloads(self, folder: Path) -> None:
        """Let files that the page gives go into a folder."""
        self._devtools.ask("Browser.setDownloadBehavior", behavior="allow", downloadPath=str(folder))

    def cookies(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self._devtools.ask("Network.getCookies", urls=[self.home])["cookies"]
        return found

    @property
    def complaints(self) -> list[str]:
        """Messages on the console, errors of scripts, and what the policy refused."""
        return [json.dumps(each["params"]) for each in self._devtools.events if each["method"] in COMPLAINTS]

    @property
    def elsewhere(self) -> list[str]:
        """Addresses that were asked for and are not the console's."""
        asked = [
            str(each["params"]["request"]["url"])
            for each in self._devtools.events
            if each["method"] == "Network.requestWillBeSent"
        ]
        return [each for each in asked if not each.startswith((self.home, "data:"))]


def _words(node: dict[str, Any], address: str, *, inside: bool) -> Iterator[str]:
    """Yield the text of a document within another, whose address ends so."""
    inside = inside or str(node.get("documentURL", "")).endswith(address)
    if inside and node["nodeName"] == "#text" and node["nodeValue"].strip():
        yield node["nodeValue"].strip()
    for child in (*node.get("children", ()), *filter(None, (node.get("contentDocument"),))):
        yield from _words(child, address, inside=inside)


@contextmanager
def window(folder: Path, home: str, width: int = 1440, *, dark: bool = False) -> Iterator[Window]:
    """Yield a window on a console at an address such as http://127.0.0.1:8090."""
    folder.mkdir(parents=True, exist_ok=True)
    with browser(folder) as devtools:
        for domain in ("Page", "Runtime", "Log", "Network", "DOM"):
            devtools.ask(f"{domain}.enable")
        made = Window(devtools, home)
        made.size(width, dark=dark)
        yield made
