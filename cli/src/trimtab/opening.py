"""The verb that opens the console."""

from __future__ import annotations

import html
import os
import tempfile
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Annotated

import typer

from . import output
from .errors import Invalid
from .options import Context, Kubeconfig, Namespace, app, client_of


@app.command()
def ui(
    *,
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1.", show_default="a free one", min=0, max=65535)] = 0,
    browser: Annotated[bool, typer.Option("--open", help="Open it in a browser.")] = False,
    namespace: Namespace = None,
    context: Context = None,
    kubeconfig: Kubeconfig = None,
) -> None:
    """Serve the console to browsers of this machine, with your rights, until Ctrl-C. Its address works once."""
    try:
        from .console.serving import serve_loopback
    except ModuleNotFoundError as missing:
        raise Invalid(
            f"the console is not installed ({missing.name} is missing)", "install it: uv tool install 'trimtab-cli[ui]'"
        ) from missing

    with client_of(namespace, context, kubeconfig) as client, opener() if browser else nullcontext() as page:

        def ready(address: str) -> None:
            output.line(address)
            output.note("The address opens one browser, once. Ctrl-C ends it.")
            if page is not None:
                page.write_text(leading_to(address))
                webbrowser.open(page.as_uri())

        serve_loopback(client.server, client.namespace, port, ready)


@contextmanager
def opener() -> Iterator[Path]:
    """Return a page that only its user reads: a browser's arguments, with the address, would be everybody's to see.

    It lies in the home directory, for browsers that are packed with a file system of their own have another /tmp.
    """
    home = Path.home()
    where = home if os.access(home, os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="trimtab-console-", dir=where) as folder:
        yield Path(folder, "console.html")


def leading_to(address: str) -> str:
    """Return a page that leads to an address at once."""
    target = html.escape(address)
    return (
        f'<!doctype html><meta charset="utf-8"><meta http-equiv="refresh" content="0; url={target}">'
        f'<meta name="referrer" content="no-referrer"><title>Trimtab</title><a href="{target}">Trimtab</a>\n'
    )
