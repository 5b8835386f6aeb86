"""``gen sample``: write text with a trained model."""

from __future__ import annotations

import json
import secrets
import sys
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer
from typer.core import TyperCommand

from gentext.chain import Chain
from gentext.cli.links import ChainFlags, extract_flags, resolve_chain
from gentext.cli.source import find_source
from gentext.config import build_config, config_class, merge, parse_setting
from gentext.console import say, warn
from gentext.describe import tokenizer_of
from gentext.errors import PrimeError, UsageError
from gentext.generate import GeneratedText, encode_prime, generate
from gentext.interfaces import Ids, OpenSampler
from gentext.manager import host
from gentext.settings import check_device, check_threads

#: Texts that are written side by side; each takes some memory.
MOST_TEXTS = 100_000


class SampleCommand(TyperCommand):
    """``gen sample`` with the options of whatever links its chain has, such as --temperature."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        known = {name: option for option in self.params for name in getattr(option, "opts", [])}
        ctx.meta["flags"], rest = extract_flags(args, known)
        ctx.meta["known"] = [name.lstrip("-") for name in known]
        return super().parse_args(ctx, rest)

    def get_help(self, ctx: Any) -> str:
        from gentext.cli.links import describe_flags

        return super().get_help(ctx) + "\n" + describe_flags(host().registry)


#: The class that the command gets.
COMMAND = SampleCommand


def sample(
    ctx: typer.Context,
    source: Annotated[
        Path | None, typer.Argument(metavar="[RUN | FILE.onnx]", help="Default: the newest exported run.")
    ] = None,
    prime: Annotated[str | None, typer.Option(help="Text to go on from.")] = None,
    prime_file: Annotated[str | None, typer.Option(help="The same from a file, or from - .")] = None,
    length: Annotated[int, typer.Option(help="New characters; 0: without end.")] = 500,
    count: Annotated[int, typer.Option(help="How many texts to write, all from one seed.")] = 1,
    seed: Annotated[int | None, typer.Option(help="The same seed gives the same text. Default: a fresh one.")] = None,
    stop: Annotated[list[str] | None, typer.Option(help="Stop before this text; may be repeated.")] = None,
    chain: Annotated[str | None, typer.Option(help="Links in order, with commas. Default: the file's.")] = None,
    unknown: Annotated[
        str, typer.Option(help="Characters of the prime that are unknown: error, skip or unknown.")
    ] = "error",
    sampler: Annotated[str, typer.Option(help="onnx or torch, or a plugin's.")] = "onnx",
    settings: Annotated[
        list[str] | None, typer.Option("--set", metavar="sampler.KEY=VALUE", help="One option of the sampler.")
    ] = None,
    device: Annotated[str, typer.Option(help="auto, cpu or cuda.")] = "auto",
    threads: Annotated[int, typer.Option(help="Threads; the text is the same. Default: by the size of the file.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a text.")] = False,
    no_stream: Annotated[bool, typer.Option("--no-stream", help="Print when all is written.")] = False,
    show_chain: Annotated[bool, typer.Option("--show-chain", help="Say which links run, with their values.")] = False,
) -> None:
    """Write text: the prime, then exactly LENGTH new characters.

    Text goes to stdout as it is written, everything else to stderr.
    """
    _check(length, count, device, threads, unknown)
    text = _read_prime(prime, prime_file)
    registry = host().registry
    sampler_class = registry.get("sampler", sampler)
    table = _sampler_table(settings or []) | ({"threads": threads} if threads else {})
    options = build_config(config_class(sampler_class), table, "sampler")
    found = find_source(source, exported=sampler == "onnx", any_file=sampler not in ("onnx", "torch"))
    opened: OpenSampler = sampler_class(options).open(found, device)
    bundle = opened.bundle
    flags: ChainFlags = ctx.meta["flags"]
    links, values, notes = resolve_chain(bundle, registry, chain, flags, ctx.meta["known"])
    ids: Ids = np.empty(0, np.int64)
    note: str | None = None
    if text:  # only to encode is the tokenizer's plugin needed: the file knows the bytes of each symbol
        ids, note = encode_prime(tokenizer_of(bundle), text, unknown)
    for line in [*notes, *([note] if note else [])]:
        warn(line)
    if device == "auto":
        say(f"device: {opened.device}")
    if show_chain:
        say(f"chain: {_spell(links, values)}")
    if seed is None:
        seed = secrets.randbelow(2**32)
        say(f"seed: {seed}")
    texts, pieces = generate(
        opened,
        links,
        prime=ids,
        seed=seed,
        count=count,
        length=length or None,
        values=values,
        stops=stop or [],
    )
    if as_json or count > 1 or no_stream:
        for _ in pieces:
            pass
        for one in texts:
            print(_as_json(one, seed, text) if as_json else text + one.text, flush=True)
    else:
        _stream(text, pieces)
    for one in texts:
        if one.finish == "masked":
            warn(f"text {one.stream} ended early: the chain left no symbol to draw")


def _check(length: int, count: int, device: str, threads: int, unknown: str) -> None:
    if length < 0:
        raise UsageError(f"--length {length}: expected 0 (without end) or more")
    if not 1 <= count <= MOST_TEXTS:
        raise UsageError(f"--count {count}: expected 1 to {MOST_TEXTS}; for more, run it again with another --seed")
    if length == 0 and count > 1:
        raise UsageError(f"--length 0 writes without end, which one text can, but not --count {count}")
    check_device(device)
    check_threads(threads)
    if unknown not in ("error", "skip", "unknown"):
        raise UsageError(f"--unknown {unknown}: expected error, skip or unknown")


def _sampler_table(settings: list[str]) -> dict[str, Any]:
    """Return what ``--set`` says about the sampler; the other sections belong to training."""
    table = merge(*map(parse_setting, settings))
    for section in sorted(table.keys() - {"sampler"}):
        raise UsageError(f"--set {section}...: gen sample has options of the sampler only, --set sampler.KEY=VALUE")
    return dict(table.get("sampler", {}))


def _read_prime(prime: str | None, prime_file: str | None) -> str:
    if prime is not None and prime_file is not None:
        raise UsageError("--prime and --prime-file: expected one of them")
    if prime_file is None:
        return prime or ""
    if prime_file == "-" and sys.stdin is None:
        raise PrimeError("--prime-file -: standard input is closed; pipe a text into it, or name a file")
    try:
        data = sys.stdin.buffer.read() if prime_file == "-" else Path(prime_file).read_bytes()
        return data.decode("utf-8-sig").replace("\r\n", "\n").replace("\r", "\n")
    except UnicodeDecodeError as error:
        raise PrimeError(f"--prime-file {prime_file}: not UTF-8 at byte {error.start}; convert it to UTF-8") from None
    except OSError as error:
        raise PrimeError(
            f"--prime-file {prime_file}: cannot be read ({error.strerror}); expected a text file"
        ) from None


def _stream(prime: str, pieces: Any) -> None:
    """Print characters as they come; a reader that goes away ends it."""
    write, flush = sys.stdout.write, sys.stdout.flush
    write(prime)
    flush()
    try:
        for piece in pieces:
            write(piece.text)
            flush()
    except KeyboardInterrupt:
        if sys.stdout.isatty():  # so that the next line does not stand behind the text
            write("\n")
        raise
    finally:
        pieces.close()
    write("\n")


def _as_json(text: GeneratedText, seed: int, prime: str) -> str:
    row = {
        "stream": text.stream,
        "seed": seed,
        "prime": prime,
        "text": text.text,
        "finish": text.finish,
        "tokens": text.tokens,
        "logprobs": [round(one, 6) for one in text.logprobs],
    }
    return json.dumps(row, ensure_ascii=False)


def _spell(chain: Chain, values: dict[str, dict[str, float]]) -> str:
    """Return the chain in words: each link with the values that it will use."""
    parts = []
    for link in chain:
        used = {name: values.get(link.name, {}).get(name, link.defaults[name]) for name in link.strategy.params}
        parts.append(f"{link.name}({', '.join(f'{name}={value:g}' for name, value in used.items())})")
    return " -> ".join([*parts, "draw"])
