"""Questions to a running engine: prompts as tokens, so that what is asked is to the token what our own loop is asked.

Answers are asked for as tokens too, and cut and decoded here, by the same rules: the tokens that end one, the stop
strings, and what of both is counted. So chat template, tokenizer and rules are ours whatever the engine's own are.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import time
from typing import Any

import httpx2

from ...contract import Reason
from ...errors import EngineFailed, SettingsInvalid
from ...fanout import ask_all
from ...interruption import Interruption
from ...pages.wording import visible
from ..asking.generation import Answer, Decoding, Prompt, special_tokens, taken
from .process import RunningEngine

AT_ONCE = 128
"""Requests under way at the same time where the evaluation names no batchSize; too many wait in the engine."""
PATIENCE_SECONDS = 1_800
"""How long no answer at all may come, and a second more for each token that one may have."""
DYING_SECONDS = 5.0
SAID_CHARACTERS = 200


class EngineAnswers:
    """Asks one engine for answers.

    Args:
        engine: that runs.
        tokenizer: transformers', the base model's, to decode with.
        ends: tokens that end an answer.
        stop: ends the waiting.
    """

    def __init__(
        self,
        engine: RunningEngine,
        tokenizer: Any,
        ends: frozenset[int],
        stop: Interruption,
    ) -> None:
        self._engine, self._tokenizer, self._ends, self._stop = engine, tokenizer, ends, stop

    def answers(self, model: str, prompts: list[Prompt], decoding: Decoding, *, at_once: int = AT_ONCE) -> list[Answer]:
        """Return an answer to every prompt, in their order.

        Args:
            model: base, or the name of an adapter.
            prompts: of any length that the engine was started for.
            decoding: how.
            at_once: requests under way at the same time; 1 lets none wait for another, for who measures seconds.

        Raises:
            Interrupted: told to stop.
            OutOfMemory, EngineFailed: it ended, or does not answer.
            SettingsInvalid: ENGINE_REFUSED, it does not take the question.
        """
        ends = self._ends | special_tokens(self._tokenizer, decoding.stop)
        patience = PATIENCE_SECONDS + decoding.max_new_tokens

        def silent(seconds: float) -> None:
            self._engine.check()
            if seconds > patience:
                raise EngineFailed(f"vLLM gave no answer for {patience:g} s; see the log of the pod") from None

        connections = min(at_once, len(prompts))
        with self._engine.client(connections, patience) as client:
            try:
                return ask_all(
                    len(prompts),
                    lambda index, _: self._answer(client, model, prompts[index], decoding, ends),
                    at_once=connections,
                    name="engine",
                    stop=self._stop,
                    silent=silent,
                )
            except httpx2.HTTPError as error:
                self._engine.check(within=DYING_SECONDS)
                raise EngineFailed(f"vLLM broke off an answer ({type(error).__name__})") from error

    def _answer(
        self, client: httpx2.Client, model: str, prompt: Prompt, decoding: Decoding, ends: frozenset[int]
    ) -> Answer:
        body: dict[str, Any] = {
            "model": model,
            "prompt": list(prompt.tokens),
            "max_tokens": decoding.max_new_tokens,
            "temperature": decoding.temperature,
            "stop_token_ids": sorted(ends),
            "stop": list(decoding.stop),
            "skip_special_tokens": True,
            "spaces_between_special_tokens": False,
            "return_token_ids": True,
        }
        if decoding.temperature:
            body |= {"top_p": decoding.top_p, "seed": seed_of(decoding.seed, prompt.number)}
        began = time.perf_counter()
        response = client.post("/v1/completions", json=body)
        seconds = time.perf_counter() - began
        if response.status_code != 200:
            raise self._refusal(response)
        try:
            (choice,) = response.json()["choices"]
            tokens, finished = [int(token) for token in choice["token_ids"]], choice["finish_reason"]
        except (ValueError, KeyError, TypeError) as error:
            raise EngineFailed("vLLM answered with what is no answer; is it another server?") from error
        if finished not in ("stop", "length"):
            raise EngineFailed(f"vLLM ended an answer with {visible(str(finished))[:40]}; see the log of the pod")
        return taken(self._tokenizer, tokens, decoding, ends, seconds, stopped=finished == "stop")

    def _refusal(self, response: httpx2.Response) -> Exception:
        said = ""
        with contextlib.suppress(ValueError, KeyError, TypeError):  # its status says enough
            said = str(json.loads(response.content)["error"]["message"])
        because = f" ({' '.join(visible(said).split())[:SAID_CHARACTERS]})" if said else ""
        if response.status_code < 500:
            return SettingsInvalid(
                f"vLLM does not take what it is asked: {response.status_code}{because}; leave engine out to ask by "
                "Transformers",
                Reason.ENGINE_REFUSED,
            )
        # Its process may be about to end, which says more.
        self._engine.check(within=DYING_SECONDS)
        return EngineFailed(f"vLLM answered {response.status_code}{because}; see the log of the pod")


def seed_of(seed: int, number: int) -> int:
    """Return what a row's draws are seeded with, 63 bits: its own, whatever stands beside it."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{number}".encode()).digest()[:8]) >> 1
