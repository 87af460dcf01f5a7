"""A judge behind an OpenAI-compatible endpoint: asked with bounded patience, by the one stage that is let out to it.

What may be cured by asking again (no answer, 408, 409, 429, 5xx, a 200 without a reply) is asked again, with doubling
pauses or those that the server asks for; all else ends the stage by name. Messages hold neither the key, nor the
server's words, nor what was judged.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx2

from ...certificates import check_authorities, why_not_taken
from ...contract import Reason, StoredEndpoint
from ...contract.judging import endpoint_trouble
from ...errors import JudgeFailed, SettingsInvalid, TrainerError
from ...fanout import ask_all
from ...interruption import Interruption
from ...keyfiles import read_key, source_of
from ...pages.wording import visible
from ...quota import PATIENCE_SECONDS, retry_after
from ...report import Report
from .judgements import Judgement
from .prompts import SCORE, JudgePrompt

KEY = "API_KEY"
KEY_CHARACTERS = 8
"""Of a key that is a secret: a shorter one may be a part of any reply."""
AT_ONCE = 8
"""Questions that are under way at the same time."""
ATTEMPTS = 6
"""Of one question, the first included; 1, 2, 4, 8 and 16 s lie between them, or what the server asks for, if longer."""
CONNECT_SECONDS, READ_SECONDS = 10, 120
REPLY_BYTES = 1 << 20
REPLY_TOKENS = 32
REPLY_CHARACTERS, MODEL_CHARACTERS = 2_000, 200
TRY_AGAIN = (408, 409, 425, 429)
HINTS = {
    402: "it wants to be paid before it answers",
    407: "a proxy on the way wants a password",
    413: "the question is longer than it takes",
}
"""What statuses mean that say by themselves what is not taken."""
WAY_OUT = (
    "let pods with the label trimtab.dev/stage: judge out to it (a NetworkPolicy may forbid it), or see why it does "
    "not answer"
)


class _NoReply(SettingsInvalid):
    """A server that says 200, and not what an OpenAI-compatible server says; or what stands before it does."""


class Endpoint:
    """Asks one model of one server."""

    part: int | None = 64

    def __init__(self, settings: StoredEndpoint, pause: Callable[[float], object] | None = None) -> None:
        """Read the key.

        Args:
            settings: whom to ask; the key API_KEY of its Secret may be absent.
            pause: waits so many seconds; absent: it waits until then, or until nobody waits for the reply any more.

        Raises:
            SettingsInvalid: CREDENTIALS_MISSING; or the url is none.
        """
        credentials = settings.credentials
        key = None
        if credentials is not None:
            source = source_of(credentials)
            key = read_key(Path(credentials.directory) / KEY, source)
            if key is None or not key.isascii() or not key.isprintable() or " " in key:
                raise SettingsInvalid(
                    f"{source} has no key {KEY}, or it holds what no key has; write it anew, or remove secretName to "
                    "ask without one",
                    Reason.CREDENTIALS_MISSING,
                )
        trouble = endpoint_trouble(settings.url)
        if trouble is not None:
            raise SettingsInvalid(trouble)
        self._settings, self._pause = settings, pause
        self._address = f"{settings.url.rstrip('/')}/chat/completions"
        self._headers = {"Authorization": f"Bearer {key}"} if key is not None else {}
        self._key = key if key is not None and len(key) >= KEY_CHARACTERS else None

    @property
    def identity(self) -> dict[str, Any]:
        """Who is asked, as it is pinned with the judgements."""
        return {"endpoint": self._settings.url, "model": self._settings.model}

    def _client(self) -> httpx2.Client:
        check_authorities()
        timeout = httpx2.Timeout(READ_SECONDS, connect=CONNECT_SECONDS)
        limits = httpx2.Limits(max_connections=AT_ONCE, max_keepalive_connections=AT_ONCE)
        return httpx2.Client(timeout=timeout, limits=limits, headers=self._headers, follow_redirects=False)

    def ask(
        self, asked: Sequence[Judgement], heard: Callable[[Judgement], object], stop: Interruption, report: Report
    ) -> None:
        """Ask every question, and tell of each with its reply as it comes.

        An answer whose head drips is final at the first one, as its thread cannot be freed of it; whatever else comes
        too late is asked again.

        Raises:
            Interrupted: told to stop.
            JudgeFailed: JUDGE_UNREACHABLE, JUDGE_OVERLOADED.
            SettingsInvalid: JUDGE_REFUSED, ACCESS_DENIED; or its certificate, or the file of authorities.
        """
        began: dict[int, float] = {}

        def overdue(_: float) -> None:
            # What comes before the body is bounded by the client piece by piece alone, and a piece may be a byte.
            limit = time.monotonic() - 2 * READ_SECONDS - CONNECT_SECONDS
            if any(at < limit for at in list(began.values())):
                raise self._slow()

        with self._client() as client:
            ask_all(
                len(asked),
                lambda number, given_up: heard(self._reply(client, asked[number], given_up, began)),
                at_once=AT_ONCE,
                name="judge",
                stop=stop,
                silent=overdue,
            )
        report("judge asked", questions=len(asked), model=self._settings.model)

    def _reply(
        self, client: httpx2.Client, asked: Judgement, given_up: threading.Event, began: dict[int, float]
    ) -> Judgement:
        """Return a question with its reply; `began` is told by thread since when a server has been asked."""
        attempt = 1
        while True:
            began[threading.get_ident()] = time.monotonic()
            try:
                text, model = self._once(client, asked.prompt)
                return replace(asked, reply=text[:REPLY_CHARACTERS], model=model)
            except (JudgeFailed, _NoReply) as error:
                asked_for = error.retry_after if isinstance(error, JudgeFailed) else None
                pause = max(2.0 ** (attempt - 1), asked_for or 0)  # a date that is past asks for nothing
                if attempt == ATTEMPTS or pause > PATIENCE_SECONDS or given_up.is_set():
                    raise
            finally:
                began.pop(threading.get_ident(), None)
            (self._pause or given_up.wait)(pause)
            attempt += 1

    def _once(self, client: httpx2.Client, prompt: JudgePrompt) -> tuple[str, str | None]:
        body = {
            "model": self._settings.model,
            "messages": [{"role": "user", "content": prompt.text}],
            "temperature": 0,
            "seed": 0,
            "max_tokens": REPLY_TOKENS,
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "judgement", "strict": True, "schema": reply_schema(prompt)},
            },
        }
        until = time.monotonic() + READ_SECONDS
        try:
            with client.stream("POST", self._address, json=body) as response:
                if response.status_code != 200:
                    raise self._refusal(response)
                data = bytearray()
                for chunk in response.iter_bytes():
                    data += chunk
                    if len(data) > REPLY_BYTES:
                        raise self._no_reply()
                    if time.monotonic() > until:  # the timeout is of each piece
                        raise self._slow()
        except httpx2.ConnectError as error:
            if (refused := why_not_taken(error)) is not None:
                raise SettingsInvalid(
                    f"the certificate of {self._settings.url} is not taken ({refused}); if it is its "
                    "authority that is not known, mount that one's with a volume of the template, and name the file in "
                    "SSL_CERT_FILE of template.env"
                ) from None
            raise self._unreachable(error) from None
        except httpx2.ReadTimeout:
            raise self._slow() from None
        except (httpx2.HTTPError, httpx2.StreamError) as error:
            raise self._unreachable(error) from None
        try:
            document = json.loads(bytes(data))
        except (ValueError, RecursionError):
            streams = data.lstrip().startswith((b"data:", b"event:"))
            raise self._no_reply("it streams, which nobody asked it to" if streams else None) from None
        try:
            text = document["choices"][0]["message"]["content"]
            model = document.get("model")
        except (KeyError, IndexError, TypeError, AttributeError):
            tells = isinstance(document, dict) and document.get("error") is not None
            raise self._no_reply("it answers 200 with an error, see its log" if tells else None) from None
        # What a server that cannot say it leaves out is a reply that cannot be read, and counts as one.
        named = " ".join(visible(self._without_key(model)).split()) if isinstance(model, str) else None
        return self._without_key(_words(text)), named[:MODEL_CHARACTERS] if named is not None else None

    def _without_key(self, text: str) -> str:
        """Return what a server says, without the key that it was asked with: replies are stored, names are shown."""
        return text.replace(self._key, "(the key)") if self._key is not None else text

    def _refusal(self, response: httpx2.Response) -> TrainerError:
        status, url = response.status_code, self._settings.url
        if status == 429:
            seconds = retry_after(response.headers)
            when = (
                f"it asks to be left alone for {seconds} s" if seconds is not None else "it does not say for how long"
            )
            return JudgeFailed(f"{url} was asked too often from here (429), {when}", Reason.JUDGE_OVERLOADED, seconds)
        if status in TRY_AGAIN or status >= 500:
            return JudgeFailed(f"{url} answered {status}; {WAY_OUT}", retry_after=retry_after(response.headers))
        if status in (401, 403):
            return SettingsInvalid(
                f"{url} denies access to the model {self._settings.model} ({status}); write a key that may ask it into "
                f"{KEY} of judge.endpoint.secretName",
                Reason.ACCESS_DENIED,
            )
        if 200 < status < 300:
            return self._no_reply(f"it answers {status}")
        if status in (404, 405):
            hint = "it has no such model, or the url is not what /chat/completions follows (often it ends with /v1)"
        elif 300 <= status < 400:
            hint = "it sends elsewhere, which is not followed, as the key would go there too; name where that is"
        else:
            hint = HINTS.get(
                status,
                "the question may be longer than the model takes, or the server may not take max_tokens, or a "
                "response_format of a JSON schema, which keeps replies readable",
            )
        return SettingsInvalid(
            f"{url} does not take what is asked of the model {self._settings.model} ({status}): {hint}",
            Reason.JUDGE_REFUSED,
        )

    def _unreachable(self, error: Exception) -> JudgeFailed:
        return JudgeFailed(f"no answer from {self._settings.url} ({type(error).__name__}); {WAY_OUT}")

    def _slow(self) -> JudgeFailed:
        return JudgeFailed(f"no answer in time from {self._settings.url}; see what it is busy with")

    def _no_reply(self, why: str | None = None) -> _NoReply:
        because = f" ({why})" if why is not None else ""
        return _NoReply(
            f"{self._settings.url} does not answer as an OpenAI-compatible server does{because}; correct "
            "judge.endpoint.url",
            Reason.JUDGE_REFUSED,
        )


def _words(content: Any) -> str:
    """Return what a message says: its text, or that of its parts; thoughts are none, and nothing is none."""
    if isinstance(content, list):
        texts = [part.get("text") for part in content if isinstance(part, dict) and part.get("type", "text") == "text"]
        return "".join(text for text in texts if isinstance(text, str))
    return content if isinstance(content, str) else ""


def reply_schema(prompt: JudgePrompt) -> dict[str, Any]:
    """Return the JSON schema of the replies that count, by which servers that can keep the model to them."""
    said = [json.loads(option)[prompt.key] for option in prompt.options]
    kind = "integer" if prompt.key == SCORE else "string"
    return {
        "type": "object",
        "properties": {prompt.key: {"type": kind, "enum": said}},
        "required": [prompt.key],
        "additionalProperties": False,
    }
