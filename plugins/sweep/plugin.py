"""The sweep as a plugin: it adds one command."""

from __future__ import annotations

from typing import Any

from gentext.hookspecs import hookimpl


@hookimpl
def register_commands(cli: Any) -> None:
    from gentext.plugins.sweep.command import sweep

    cli.command("sweep")(sweep)
