"""Verbs that answer a question and change nothing: ask, estimate."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import output
from .errors import Invalid
from .options import Context, Kubeconfig, Name, Namespace, Output, app, client_of, names_for
from .output import Format

if TYPE_CHECKING:
    from .asking import Heard
    from .client import Client
    from .replies import Replies, Reply


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


@app.command()
def estimate(
    *,
    name: Annotated[str, typer.Argument(help="Name of a FineTuneJob, or a file with one.", autocompletion=names_for)],
    trainer: Annotated[
        bool, typer.Option("--trainer", help="Ask the trainer too, on which accelerators it fits. Of files always.")
    ] = False,
    model_config: Annotated[
        Path | None, typer.Option(help="A config.json to go by, instead of the base model's files.")
    ] = None,
    accelerators: Annotated[
        list[str] | None, typer.Option("--accelerator", help="Such as H100-80GB.", show_default="all")
    ] = None,
    tokens: Annotated[
        int | None, typer.Option(min=1, help="Of the rows in an epoch.", show_default="what prepare counted")
    ] = None,
    price: Annotated[float | None, typer.Option(min=0, help="Of an accelerator for an hour.")] = None,
    form: Output = Format.table,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Estimate what a run takes: from its status, or before it begins by the trainer's own estimate."""
    from .client import Client
    from .estimating import KINDS_OF_FILES

    chosen = accelerators or []
    if name.endswith(KINDS_OF_FILES):
        found = Client.estimate_file(name, model_config=model_config, accelerators=chosen, tokens=tokens)
    else:
        with client_of(namespace, context, kubeconfig) as client:
            found = client.estimate(
                name, trainer=trainer, model_config=model_config, accelerators=chosen, tokens=tokens
            )

    def data() -> dict[str, Any]:
        from dataclasses import asdict

        cost = found.cost and {**asdict(found.cost), "total": found.cost.total}
        return {**asdict(found), "cost": cost, "price": price}

    def picture() -> Any:
        from .rendering import estimate

        return estimate(found, price)

    output.show(form, data, picture)


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
    from .replies import title_of
    from .text import clean

    lines: list[str] = []
    for each in found:
        lines += ["", clean(f"== {title_of(each)}")] if lines else [clean(f"== {title_of(each)}")]
        lines += [clean(part) for part in each.text.strip().splitlines()]
        lines += [f"(broken off: {clean(each.problem)})"] if each.problem else []
    return lines
