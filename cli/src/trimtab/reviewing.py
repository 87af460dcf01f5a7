"""Verbs by which people decide about adapters: approve, reject, comment."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from . import output
from .options import Context, DryRun, Kubeconfig, Name, Namespace, app, client_of

if TYPE_CHECKING:
    from .decisions import Decided

Message = Annotated[str, typer.Option("--message", "-m", help="Why, for people.", show_default=False)]
Digest = Annotated[
    str | None,
    typer.Option(help="Digest of the adapter, whole or its first digits.", show_default="the one that waits"),
]


@app.command()
def approve(
    *,
    name: Name,
    message: Message = "",
    digest: Digest = None,
    dry_run: DryRun = False,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Approve the adapter that a rollout waits with, as the user that you are."""
    with client_of(namespace, context, kubeconfig) as client:
        _tell(client.approve(name, message, digest=digest, dry_run=dry_run), dry_run)


@app.command()
def reject(
    *,
    name: Name,
    message: Message = "",
    digest: Digest = None,
    dry_run: DryRun = False,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Reject an adapter: a rollout that asks for approvals takes its canary back, or does not begin."""
    with client_of(namespace, context, kubeconfig) as client:
        _tell(client.reject(name, message, digest=digest, dry_run=dry_run), dry_run)


@app.command()
def comment(
    *,
    name: Name,
    message: Message = "",
    digest: Digest = None,
    dry_run: DryRun = False,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Say something about an adapter; nothing follows from it."""
    with client_of(namespace, context, kubeconfig) as client:
        _tell(client.comment(name, message, digest=digest, dry_run=dry_run), dry_run)


def _tell(decided: Decided, dry_run: bool) -> None:
    suffix = " (dry run, nothing was stored)" if dry_run else ""
    output.line(f"review/{decided.review.name}: {decided.sentence}{suffix}")
    if not decided.is_followed:
        output.note(f"{decided.about.name} asks for no approvals (spec.strategy.approvals): nothing follows from this.")
    elif decided.waits_for:
        output.note(f"{decided.about.name} waits for {decided.waits_for}, which this is not about.")
