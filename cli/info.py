"""``gen info``: describes a run or an exported file."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Annotated, Any

import typer

from gentext.arguments import with_flags
from gentext.exported.boundary import RecordsMeta
from gentext.library.declaration import VerifyArguments
from gentext.run import GENERATOR_FILE, MODEL_FILE, Run
from gentext.runs.completion import complete_models
from gentext.runs.source import find_source

#: Parts of a card that are too long to be shown.
HIDDEN_FACTS = ("config", "curve")
#: The facts in the order of the output, by the question that they answer. Those of no group come at the end.
GROUPS = {
    "": ("summary", "run", "file", "exported", "corpus", "records", "val_loss", "train_loss", "verdict"),
    "training": ("parameters", "steps", "best_step", "edition", "command", "created", "versions"),
    "files": ("megabytes", "precision", "precision_losses", "generator", "export", "fingerprint", "license"),
    "text": ("tokenizer", "symbols"),
    "interface": ("states", "chain"),
}


@with_flags
def info(
    source: Annotated[
        Path | None,
        typer.Argument(metavar="[RUN | FILE.onnx]", help="Default: the newest run.", autocompletion=complete_models),
    ] = None,
    *,
    opening: VerifyArguments,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show where a model comes from, its sizes and losses, its chain, and what to try next."""
    path = find_source(source, opens=("run", "onnx file"))
    verify = opening["verify"]
    facts = _describe_file(path, verify) if path.is_file() else _describe_run(Run(path), verify)
    if as_json:
        print(json.dumps(facts, indent=1, ensure_ascii=False))
        return
    known = {name for names in GROUPS.values() for name in names}
    others = tuple(name for name in facts if name not in known)
    for heading, names in {**GROUPS, "more": others}.items():
        lines = [(name, line) for name in names if name in facts for line in _format_fact(facts[name])]
        if lines and heading:
            print(f"\n{heading}")
        for name, line in lines:
            print(f"{name + ':':<12} {line}")


def _format_fact(fact: Any) -> list[str]:
    """Return the lines of a fact: one for each element of a list, one for a table's names and values, none for None."""
    if isinstance(fact, dict):
        shown_facts = {name: part for name, part in fact.items() if part is not None and not isinstance(part, dict)}
        return [", ".join(f"{name} {_format_number(part)}" for name, part in shown_facts.items())]
    facts = fact if isinstance(fact, list) else [fact]
    return [_format_number(part) for part in facts if part is not None]


def _format_number(fact: Any) -> str:
    """Return a fact as text; a fraction has the digits that say something, as in 1.3888 and 0.00012346."""
    if isinstance(fact, float):
        return f"{fact:.5g}" if abs(fact) < 1e5 else f"{fact:,.0f}"
    return str(fact)


def _describe_file(path: Path, verify: bool) -> dict[str, Any]:
    from gentext.plugins.samplers.session import open_file

    bundle = open_file(path, "cpu", verify=verify).bundle
    card = bundle.card
    chain = []
    for link in bundle.chain:
        params = ", ".join(f"{name}={param.default:g}" for name, param in link.params.items() if param.is_option)
        chain.append(f"{link.name} {params}".rstrip())
    return {
        "file": str(path),
        "megabytes": round(path.stat().st_size / 1e6, 1),
        "symbols": bundle.vocab_size,
        "tokenizer": bundle.tokenizer.name,
        **_describe_records(bundle.records),
        "states": [f"{state.name} {state.dtype} {state.shape}".replace("None", "batch") for state in bundle.states],
        "chain": chain,
        **{name: fact for name, fact in card.items() if name not in HIDDEN_FACTS},
        "verdict": _verdict_lines(card),
    }


def _describe_records(records: RecordsMeta | None) -> dict[str, Any]:
    return {} if records is None else {"records": dataclasses.asdict(records) | {"header": records.header or None}}


def _describe_generator(path: Path, verify: bool) -> str:
    """Return in one line what a run's compiled generator is."""
    from gentext.plugins.samplers.session import open_file

    bundle = open_file(path, "cpu", verify=verify).bundle
    losses = bundle.card.get("precision_losses")
    measured_losses = f" (held out {_format_fact(losses)[0]})" if isinstance(losses, dict) else ""
    chain = ", ".join(link.name for link in bundle.chain)
    return f"{bundle.card.get('precision', 'fp32')}{measured_losses}, {path.stat().st_size / 1e6:.1f} MB, chain {chain}"


def _describe_run(run: Run, verify: bool) -> dict[str, Any]:
    config = run.config
    if run.model.is_file():
        facts = {"run": str(run.path), **_describe_file(run.path / MODEL_FILE, verify)}
        if "corpus" in config:
            facts["corpus"] = config["corpus"]  # with the origin, which an exported file does not have
        generator_path = run.path / GENERATOR_FILE
        return facts | ({"generator": _describe_generator(generator_path, verify)} if generator_path.is_file() else {})
    rows = run.read_metrics()
    val_losses = [row["val_loss"] for row in rows if row.get("val_loss") is not None]
    return {
        "run": str(run.path),
        "exported": f"no; gen export {run.path}, or gen train --resume --run {run.path}",
        "corpus": config.get("corpus", {}),
        "steps": f"{rows[-1]['step'] if rows else 0} of {_look_up(config, 'run', 'steps') or '?'}",
        "val_loss": min(val_losses) if val_losses else None,
    }


def _look_up(table: Any, *keys: str) -> Any:
    """Return a value in nested tables, or None where one is missing: a file from elsewhere may hold anything."""
    for key in keys:
        table = table.get(key) if isinstance(table, dict) else None
    return table


def _verdict_lines(card: dict[str, Any]) -> list[str]:
    """Return the verdict of a file's card; a file from elsewhere may hold anything there."""
    lines = card.get("verdict")
    return [line for line in lines if isinstance(line, str)] if isinstance(lines, list) else []
