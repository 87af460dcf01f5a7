"""Verbs that try something out and change nothing: ask."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import output
from .errors import Invalid
from .options import Context, Kubeconfig, Name, Namespace, Output, app, client_of
from .output import Format

if TYPE_CHECKING:
    from .asking import Heard, Replies, Reply
    from .client import Client


@app.command()
def ask(
    *,
    name: Name,
    question: Annotated[
        str | None, typer.Argument(help="What to ask; from standard input if it is absent.", show_default=False)
    ] = None,
    revisions: Annotated[
        list[str] | None,
        typer.Option("--revision", "-r", help="Ask this revision too: name@digest, or the begin of a digest."),
    ] = None,
    base: Annotated[bool, typer.Option(help="Ask the base model too.")] = True,
    tokens: Annotated[int, typer.Option("--max-tokens", min=1, help="Length of an answer.")] = 256,
    temperature: Annotated[float, typer.Option(min=0, max=2, help="0: always the same answer.")] = 0.0,
    completion: Annotated[bool, typer.Option("--completion", help="Go on with the text, without a chat.")] = False,
    port: Annotated[int | None, typer.Option(help="Of the engine in its pod.", show_default="that named http")] = None,
    url: Annotated[
        str | None, typer.Option(help="An engine's own address, such as a forwarded port.", show_default="the pod")
    ] = None,
    form: Output = Format.table,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Ask base, served adapter and revisions the same, side by side. Through the API server, as you."""
    words = _question(question)
    settings: dict[str, Any] = {"max_tokens": tokens, "temperature": temperature}

    def asked(client: Client, heard: Heard | None = None) -> Replies:
        return client.ask(
            name,
            words,
            revisions=revisions or [],
            base=base,
            port=port,
            url=url,
            chat=not completion,
            heard=heard,
            **settings,
        )

    with client_of(namespace, context, kubeconfig) as client:
        if form in (Format.table, Format.wide) and sys.stdout.isatty():
            found = _live(lambda heard: asked(client, heard))
        else:
            found = asked(client)
            output.show(form, lambda: _data(found), lambda: "", lambda: _plain(found))
    failed = [each for each in found if each.problem]
    if failed:
        raise Invalid(f"{len(failed)} of {len(found)} did not answer", failed[0].problem)


def _question(given: str | None) -> str:
    if given is None and sys.stdin.isatty():
        given = str(typer.prompt("Question", err=True))
    words = sys.stdin.read() if given is None else given
    if not words.strip():
        raise Invalid("there is no question", "write it behind the name, or into standard input")
    return words


def _live(asked: Callable[[Heard], Replies]) -> Replies:
    """Draw answers as they come."""
    from rich.console import Console
    from rich.live import Live

    from .rendering import line, replies

    console = Console(markup=False, highlight=False, emoji=False)
    with Live(line("Asking ..."), console=console, refresh_per_second=8, vertical_overflow="visible") as live:

        def heard(told: Sequence[Reply]) -> None:
            live.update(replies(told))

        found = asked(heard)
        live.update(replies(found), refresh=True)
    return found


def _data(found: Replies) -> dict[str, Any]:
    from dataclasses import asdict

    answers = [{**asdict(each), "seconds": round(each.seconds, 3)} for each in found]
    return {"question": found.question, "engine": found.engine, "answers": answers}


def _plain(found: Replies) -> list[str]:
    """Return the lines of answers, one answer after the other."""
    from .rendering import title_of
    from .text import clean

    lines: list[str] = []
    for each in found:
        lines += ["", clean(f"== {title_of(each)}")] if lines else [clean(f"== {title_of(each)}")]
        lines += [clean(part) for part in each.text.strip().splitlines()]
        lines += [f"(broken off: {clean(each.problem)})"] if each.problem else []
    return lines
