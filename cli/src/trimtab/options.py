"""What all verbs share: the application, the options, names that the shell completes, and the client."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated

import typer

from .errors import Problem
from .output import Format

if TYPE_CHECKING:
    from .client import Client

app = typer.Typer(
    name="trimtab",
    help="What trains, how the loss falls, why something stopped, how two runs differ: FineTuneJobs, FineTuneSweeps, "
    "Evaluations, AdapterRollouts, Reviews and AdapterExports, with the rights of your kubeconfig.",
    epilog="A name is demo, or finetunejob/demo where two kinds have it. Exit codes: 0 done, 1 an error or a fault in "
    "what was checked, 2 a wrong command line, 3 no cluster answers, 4 not allowed.",
    no_args_is_help=True,
    rich_markup_mode=None,  # plain help: rich takes longer to import than everything else together
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@contextlib.contextmanager
def client_of(namespace: str | None, context: str | None, kubeconfig: str | None) -> Iterator[Client]:
    """Yield the client of what was given on the command line."""
    from .client import Client

    with Client(namespace, context=context, kubeconfig=kubeconfig) as client:
        yield client


def names_for(ctx: typer.Context, incomplete: str) -> list[str]:
    """Return what a name may go on to, for the shell; of a cluster that does not answer nothing."""
    where = (ctx.params.get(name) for name in ("namespace", "context", "kubeconfig"))
    try:
        with client_of(*where) as client:
            return [name for name in client.names() if name.startswith(incomplete)]
    except Problem:
        return []


def _kinds(incomplete: str) -> list[str]:
    from .kinds import kinds

    return [kind.singular for kind in kinds() if kind.singular.startswith(incomplete)]


Name = Annotated[str, typer.Argument(help="Name, or kind/name.", autocompletion=names_for, show_default=False)]
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
