"""Loads without an error, beside plugins that fail; but its component, its hooks and its command are broken."""

import sys

from gentext import hookimpl


@hookimpl
def register_models(register):
    register("hollow", "gentext_broken.no_such_module:Model", summary="its module is not there")


@hookimpl
def step_done(progress):
    raise RuntimeError(f"step {progress.step} was too much")


@hookimpl
def evaluated(run):
    sys.exit(0)


@hookimpl
def register_commands(cli):
    cli.command("train")(lambda: None)
