"""The server as a plugin: it adds one command."""

from __future__ import annotations

from typing import Any

from gentext.hookspecs import hookimpl


@hookimpl
def register_commands(cli: Any) -> None:
    from gentext.plugins.server.command import serve

    cli.command("serve")(serve)
