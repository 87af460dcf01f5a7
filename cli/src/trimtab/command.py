"""The command line: arguments become calls of the client, and values become pictures.

What is slow to import is imported by the verb that needs it.
"""

from __future__ import annotations

import contextlib
import shutil
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import output
from .errors import Invalid, Problem
from .output import Format

if TYPE_CHECKING:
    from .client import Client
    from .tables import Listing

app = typer.Typer(
    name="trimtab",
    help="What trains, how the loss falls, why something stopped, how two runs differ: FineTuneJobs, FineTuneSweeps, "
    "Evaluations and AdapterRollouts, with the rights of your kubeconfig.",
    epilog="A name is demo, or finetunejob/demo where two kinds have it. Exit codes: 0 done, 1 an error or a fault in "
    "what was checked, 2 a wrong command line, 3 no cluster answers, 4 not allowed.",
    no_args_is_help=True,
    rich_markup_mode=None,  # plain help: rich takes longer to import than everything else together
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@contextlib.contextmanager
def _client(namespace: str | None, context: str | None, kubeconfig: str | None) -> Iterator[Client]:
    from .client import Client

    with Client(namespace, context=context, kubeconfig=kubeconfig) as client:
        yield client


def _names(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return what a name may go on to, for the shell; of a cluster that does not answer nothing."""
    where = (ctx.params.get(name) for name in ("namespace", "context", "kubeconfig"))
    try:
        with _client(*where) as client:
            return [name for name in client.names() if name.startswith(incomplete)]
    except Problem:
        return []


def _kinds(incomplete: str) -> list[str]:
    from .kinds import kinds

    return [kind.singular for kind in kinds() if kind.singular.startswith(incomplete)]


Name = Annotated[str, typer.Argument(help="Name, or kind/name.", autocompletion=_names, show_default=False)]
KindName = Annotated[
    str | None,
    typer.Argument(help="Kind, in any form: finetunejob, ftj.", autocompletion=_kinds, show_default="all"),
]
Namespace = Annotated[
    str | None, typer.Option("--namespace", "-n", help="Namespace.", show_default="that of the context")
]
AllNamespaces = Annotated[bool, typer.Option("--all-namespaces", "-A", help="Of all namespaces.")]
Context = Annotated[str | None, typer.Option(help="Context of the kubeconfig.", show_default="the current one")]
Kubeconfig = Annotated[
    str | None, typer.Option(help="Path of the kubeconfig.", show_default="KUBECONFIG, else ~/.kube/config")
]
Output = Annotated[Format, typer.Option("--output", "-o", help="How to write it.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Ask the API server, and change nothing.")]


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
    with _client(namespace, context, kubeconfig) as client:
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
    with _client(namespace, context, kubeconfig) as client:
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
    with _client(namespace, context, kubeconfig) as client, contextlib.suppress(KeyboardInterrupt):
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
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Print the logs of all attempts. Of pods that are gone: what the status has."""
    with _client(namespace, context, kubeconfig) as client, contextlib.suppress(KeyboardInterrupt):
        attempt, told = -1, False
        for each in client.logs(name, follow=follow, tail=tail):
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
    names: Annotated[list[str], typer.Argument(help="Names of FineTuneJobs.", autocompletion=_names)],
    form: Output = Format.table,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Draw loss and validation loss, of several runs in one picture."""
    with _client(namespace, context, kubeconfig) as client:
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
    with _client(namespace, context, kubeconfig) as client:
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


@app.command()
def suspend(
    *,
    name: Name,
    dry_run: DryRun = False,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Hold up a run, sweep or rollout. A run writes a checkpoint and frees its accelerators."""
    _hold(name, dry_run, held=True, where=(namespace, context, kubeconfig))


@app.command()
def resume(
    *,
    name: Name,
    dry_run: DryRun = False,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Let go on what was held up, from where it was."""
    _hold(name, dry_run, held=False, where=(namespace, context, kubeconfig))


def _hold(name: str, dry_run: bool, *, held: bool, where: tuple[str | None, str | None, str | None]) -> None:
    with _client(*where) as client:
        about = client.suspend(name, dry_run=dry_run) if held else client.resume(name, dry_run=dry_run)
    value = str(held).lower()
    suffix = " (dry run, nothing was changed)" if dry_run else ""
    output.line(f"{about.kind.singular}/{about.name}: spec.{about.kind.stop} is {value}{suffix}")
    if about.kept_by:
        output.note(f"It bears {about.kept_by}: what keeps it as it is in git may set this back; change it there too.")


@app.command()
def check(
    *,
    file: Annotated[Path, typer.Argument(help="YAML file with one or more objects.", show_default=False)],
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Check manifests against the cluster: what is wrong, in which line. Nothing is stored."""
    with _client(namespace, context, kubeconfig) as client:
        findings = client.check(file)
    for each in findings:
        output.line(f"{each}" if each.fault else f"{each} (no fault)")
    faults = sum(each.fault for each in findings)
    if faults:
        raise Invalid(f"{faults} {'fault' if faults == 1 else 'faults'} in {file}", "correct the lines above")
    output.note(f"{file} can be applied: kubectl apply -f {file}")


@app.command()
def new(
    *,
    name: Annotated[
        str | None, typer.Argument(help="Name of the job and of what is served.", show_default=False)
    ] = None,
    base_model: Annotated[str | None, typer.Option(help="Address of the base model: s3:// or hf://.")] = None,
    data: Annotated[str | None, typer.Option(help="Address of the rows, a file or a prefix.")] = None,
    to: Annotated[str | None, typer.Option("--output", help="Address that adapters are published under.")] = None,
    secret: Annotated[str | None, typer.Option(help="Secret with the keys of the object storage.")] = None,
    gpus: Annotated[int, typer.Option(help="GPUs of the run; 0 trains on processors.")] = 1,
    serve: Annotated[str, typer.Option(help="Label of the vLLM pods that serve it, such as app=vllm.")] = "",
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="File to write, which must not be there yet.")
    ] = None,
) -> None:
    """Write manifests for a beginning, from flags or answers. With --serve also the name it is served under."""
    from .manifests import Answers, manifests

    answers = Answers(
        name=_asked("Name", "NAME", name),
        base_model=_asked("Base model (s3://models/...)", "--base-model", base_model),
        data=_asked("Rows to learn from (s3://datasets/...)", "--data", data),
        output=_asked("Where adapters go (s3://adapters/...)", "--output", to),
        secret_name=_asked("Secret with the storage's keys", "--secret", secret, default="object-storage"),
        gpus=gpus,
        serving=serve,
    )
    text = manifests(answers)
    if file is None:
        sys.stdout.write(text)
        return
    try:
        with file.open("x", encoding="utf-8") as opened:
            opened.write(text)
    except OSError as error:
        raise Invalid(f"{file} cannot be written ({error.strerror})", "give another path") from error
    output.note(f"{file} is written; kubectl trimtab check {file} says whether the cluster takes it.")


def _asked(question: str, option: str, given: str | None, default: str | None = None) -> str:
    """Return what was given, else ask a person; of a script nothing is asked."""
    if given is not None:
        return given
    if sys.stdin.isatty():
        return str(typer.prompt(question, default=default, err=True))
    if default is not None:
        return default
    raise Invalid(f"{option} is missing", "give it, or run this in a terminal to be asked")
