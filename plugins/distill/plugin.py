"""Registers what a student needs: one command, a batcher and a trainer."""

from __future__ import annotations

from typing import Any

from gentext.hookspecs import hookimpl
from gentext.registry import Register


@hookimpl
def register_commands(cli: Any) -> None:
    from gentext.plugins.distill.command import distill

    cli.command("distill")(distill)


@hookimpl
def register_batchers(register: Register) -> None:
    register("written", "gentext.plugins.distill.batcher:WrittenBatcher", summary="text that a teacher writes")


@hookimpl
def register_trainers(register: Register) -> None:
    register("distill", "gentext.plugins.distill.trainer:DistillTrainer", summary="learns a teacher's probabilities")
