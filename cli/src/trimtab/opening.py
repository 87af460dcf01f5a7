"""The verb that opens the console."""

from __future__ import annotations

import webbrowser
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

    def ready(address: str) -> None:
        output.line(address)
        output.note("The address opens one browser, once. Ctrl-C ends it.")
        if browser:
            webbrowser.open(address)

    with client_of(namespace, context, kubeconfig) as client:
        serve_loopback(client.server, client.namespace, port, ready)
