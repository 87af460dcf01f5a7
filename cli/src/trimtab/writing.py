"""Verbs that change an object or write manifests: suspend, resume, check, apply, keys, new."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from . import output
from .errors import Invalid
from .options import Context, DryRun, Kubeconfig, Name, Namespace, app, client_of


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
    with client_of(*where) as client:
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
    with client_of(namespace, context, kubeconfig) as client:
        findings = client.check(file)
    for each in findings:
        output.line(f"{each}" if each.fault else f"{each} (no fault)")
    faults = sum(each.fault for each in findings)
    if faults:
        raise Invalid(f"{faults} {'fault' if faults == 1 else 'faults'} in {file}", "correct the lines above")
    output.note(f"{file} can be applied: kubectl apply -f {file}")


@app.command("apply")
def apply_(
    *,
    file: Annotated[Path, typer.Argument(help="YAML file with one or more objects.", show_default=False)],
    dry_run: DryRun = False,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Check manifests, then write all of them. If one has a fault, none."""
    with client_of(namespace, context, kubeconfig) as client:
        written = client.apply(file, dry_run=dry_run)
    for each in written:
        output.line(f"{each}{' (dry run, nothing was changed)' if dry_run else ''}")


@app.command()
def keys(
    *,
    name: Annotated[str, typer.Argument(help="Name of the Secret.")] = "object-storage",
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Put the object storage's keys of this environment (AWS_*) into a Secret for the pods."""
    with client_of(namespace, context, kubeconfig) as client:
        written = client.keys(name)
    output.line(str(written))


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
    hub_secret: Annotated[str, typer.Option(help="Secret with the token of a hub, for hf:// that asks for one.")] = "",
    gpus: Annotated[int, typer.Option(help="GPUs of the run; 0 trains on processors.")] = 1,
    nodes: Annotated[int, typer.Option(help="Pods that train together, each with these GPUs.")] = 1,
    method: Annotated[str, typer.Option(help="SFT, or from pairs of answers DPO or ORPO.")] = "SFT",
    trials: Annotated[int, typer.Option(help="Trials of a search over learning rate and rank; 0: one run.")] = 0,
    export: Annotated[str, typer.Option(help="Address that the whole model is written below.")] = "",
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
        nodes=nodes,
        method=method,
        trials=trials,
        export=export,
        hub_secret_name=hub_secret,
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
