"""Verbs that only read: list, describe, watch, logs, curve, compare."""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import output
from .options import AllNamespaces, Context, KindName, Kubeconfig, Name, Namespace, Output, app, client_of, names_for
from .output import Format

if TYPE_CHECKING:
    from .tables import Listing


@app.command("list")
def list_(
    *,
    kind: KindName = None,
    all_namespaces: AllNamespaces = False,
    form: Output = Format.table,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """List objects: state, progress, verdict."""
    with client_of(namespace, context, kubeconfig) as client:
        found = client.list(kind, all_namespaces=all_namespaces)
    for each in found.not_shown:
        output.note(f"not shown: {each}")
    if not found and form in (Format.table, Format.wide):
        where = "in any namespace" if all_namespaces else f"in the namespace {client.namespace}"
        output.note(f"Nothing of Trimtab is {where}. kubectl trimtab new writes manifests for a beginning.")
        return

    from .tables import plain, tables

    def picture() -> Any:
        from .rendering import listing_of

        return listing_of(made)

    made = tables(found, datetime.now(UTC), wide=form is Format.wide, namespaces=all_namespaces)
    output.show(form, lambda: _as_list(found), picture, lambda: plain(made))


def _as_list(found: Listing) -> dict[str, Any]:
    """Return objects as kubectl writes them: one List, without the ledger of who wrote which field."""
    items = []
    for each in found:
        metadata = {name: value for name, value in each.metadata.items() if name != "managedFields"}
        items.append({**each.body, "metadata": metadata})
    return {"apiVersion": "v1", "kind": "List", "items": items}


@app.command()
def describe(
    *,
    name: Name,
    form: Output = Format.table,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Tell what an object does, why, and what to do next."""
    with client_of(namespace, context, kubeconfig) as client:
        told = client.describe(name)

    def data() -> dict[str, Any]:
        about = told.object
        names = {"kind": about.kind.name, "namespace": about.namespace, "name": about.name}
        sections = {each.heading.lower(): list(each.lines) for each in told.sections}
        return {**names, "state": about.state, "status": about.status, **sections}

    def picture() -> Any:
        from .rendering import story_of

        return story_of(told)

    output.show(form, data, picture)


@app.command()
def watch(
    *,
    kind: KindName = None,
    all_namespaces: AllNamespaces = False,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Watch objects change, losses as sparklines, until Ctrl-C. Into a pipe: a line for each change."""
    with client_of(namespace, context, kubeconfig) as client, contextlib.suppress(KeyboardInterrupt):  # how it ends
        pictures = client.watch(kind, all_namespaces=all_namespaces)
        if sys.stdout.isatty():
            _watch_live(pictures, all_namespaces)
        else:
            _watch_lines(pictures)


def _watch_live(pictures: Iterator[Listing], namespaces: bool) -> None:
    from rich.console import Console
    from rich.live import Live

    from .rendering import line, listing

    console = Console(markup=False, highlight=False, emoji=False)
    with Live(line("Looking ..."), console=console, auto_refresh=False) as live:
        for objects in pictures:
            picture = listing(objects, datetime.now(UTC), namespaces=namespaces, curves=True)
            live.update(picture if objects else line("Nothing of Trimtab is here yet."), refresh=True)


def _watch_lines(pictures: Iterator[Listing]) -> None:
    """Write a line for what is new: namespace, kind and name, state, progress, and the message."""
    from .objects import mapping

    seen: dict[tuple[str, str], str] = {}
    for objects in pictures:
        now = {}
        for each in objects:
            progress = str(mapping(each.told.get("summary")).get("progress") or "")
            words = (each.namespace, f"{each.kind.singular}/{each.name}", each.state or "New", progress, each.message)
            now[each.namespace, f"{each.kind.singular}/{each.name}"] = "  ".join(filter(None, words))
        for key, told in now.items():
            if seen.get(key) != told:
                output.line(told)
        for namespace, name in seen.keys() - now.keys():
            output.line(f"{namespace}  {name}  Deleted")
        seen = now


@app.command()
def logs(
    *,
    name: Name,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what runs.")] = False,
    tail: Annotated[int | None, typer.Option(min=0, help="Lines of each pod.", show_default="all")] = None,
    storage: Annotated[
        bool, typer.Option("--storage", help="What a run left in object storage, with your own keys (AWS_*).")
    ] = False,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Print the logs of all attempts. Of pods that are gone: what the status has."""
    with client_of(namespace, context, kubeconfig) as client, contextlib.suppress(KeyboardInterrupt):  # of --follow
        attempt, told = -1, False
        for each in client.logs(name, follow=follow, tail=tail, storage=storage):
            told = True
            if each.attempt.number != attempt:
                attempt = each.attempt.number
                output.note(f"==> attempt {attempt}, {each.attempt.stage}, Job {each.attempt.job_name} <==")
            if each.pod:
                output.line(each.text)
            else:
                output.note(each.text)
        if not told:
            output.note("No attempt has begun; kubectl trimtab describe says why.")


@app.command()
def curve(
    *,
    names: Annotated[list[str], typer.Argument(help="Names of FineTuneJobs.", autocompletion=names_for)],
    form: Output = Format.table,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Draw loss and validation loss, of several runs in one picture."""
    with client_of(namespace, context, kubeconfig) as client:
        drawn = [client.curve(name) for name in names]

    def data() -> list[dict[str, Any]]:
        return [
            {
                "name": each.name,
                "loss": [list(point) for point in each.loss],
                "validationLoss": [list(point) for point in each.validation_loss],
            }
            for each in drawn
        ]

    def picture() -> Any:
        from .rendering import curves

        return curves(drawn, _width())

    output.show(form, data, picture)


def _width() -> int:
    return min(100, shutil.get_terminal_size().columns) if sys.stdout.isatty() else 72


@app.command()
def compare(
    *,
    first: Name,
    second: Name,
    form: Output = Format.table,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Compare two objects: settings, figures, curves. Of a kind; figures have their intervals."""
    with client_of(namespace, context, kubeconfig) as client:
        found = client.compare(first, second)

    def data() -> dict[str, Any]:
        from dataclasses import asdict

        names = {"first": found.first.name, "second": found.second.name}
        figures = [{**asdict(each), "change": each.change} for each in found.figures]
        for each in figures:
            each["low"], each["high"] = list(each["low"]), list(each["high"])
        return {**names, "settings": [asdict(each) for each in found.settings], "figures": figures}

    def picture() -> Any:
        from .rendering import comparison

        return comparison(found, _width())

    output.show(form, data, picture)
