"""``gen sample`` of a model of records: whole records, one behind another, on stdout or in a file."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from gentext.cli.prefixes import read_prefixes
from gentext.cli.sample_flags import OutputFlags, RecordFlags
from gentext.cli.sample_resume import CommandWords
from gentext.cli.sample_texts import describe_chain
from gentext.components.filters import create_filters
from gentext.console import progress, say, warn
from gentext.errors import RunError, UsageError
from gentext.files.atomic import write_text
from gentext.files.escapes import decode_escapes
from gentext.library.loading import TextModel
from gentext.records.record_output import RecordFile, RecordFormat, settings_path
from gentext.records.record_plan import WrittenRecord
from gentext.records.record_requests import Prefix, RecordRequest, require_records
from gentext.records.record_writing import RecordStream, describe_counts
from gentext.requests.declaration import RecordsOwnArguments, WritingOptions
from gentext.requests.spelling import Spelling

#: Seconds after which what is written is given out.
FLUSH_SECONDS = 0.2


@dataclasses.dataclass(frozen=True)
class RecordCommand:
    """A call of ``gen sample`` that writes records."""

    model: TextModel
    options: WritingOptions
    """Its ``length`` may be None, which is the default of records."""
    prime: str
    records: RecordsOwnArguments
    flags: RecordFlags
    used_flags: Sequence[str]
    """The flags about records that the command line has."""
    output: OutputFlags
    words: Sequence[str]
    """The words of the command line."""
    settings: Mapping[str, Any] | None
    """The settings of the file to go on with, or None."""

    def run(self, spelling: Spelling, *, show_device: bool) -> None:
        """Write the records to stdout, or to the file."""
        require_records(self.model.bundle, self.model.path, next(iter(self.used_flags), "--set filter"))
        self._check()
        request = self._to_request()
        stream, writing = self.model.prepare_records(request, spelling)
        for note in writing.notes:
            warn(note)
        if show_device:
            say(f"device: {self.model.device}")
        if self.output["show_chain"]:
            say(f"chain: {describe_chain(writing.chosen_chain)}")
        if request.options["seed"] is None:
            say(f"seed: {writing.seed}")
        fields = [field.strip() for field in (self.flags["fields"] or "").split(",") if field.strip()]
        separator, path = self.output["separator"], self.output["output"]
        record_format = RecordFormat(
            self.model.bundle,
            self.flags["format"],
            fields,
            None if separator is None else decode_escapes(separator),
            is_alone=stream.total == 1,
        )
        beginning, format_record = record_format.beginning, record_format.format
        if self.output["as_json"]:
            beginning, format_record = "", _format_json
        output: StandardOutput | RecordFile = StandardOutput(stream)
        if path is not None:
            output = self._open_file(path, stream, record_format)
        _write_out(stream, output, beginning, format_record)

    def _check(self) -> None:
        """Raise UsageError for options that exclude each other."""
        flags, output = self.flags, self.output
        beginnings = {
            "--prime": self.prime,
            "--prefix-file": flags["prefix_file"],
            "--given": flags["field_values"],
        }
        used = [name for name, setting in beginnings.items() if setting]
        if len(used) > 1:
            raise UsageError(f"{used[0]} and {used[1]}: expected one of them")
        if self.options["stop"]:
            raise UsageError("--stop: records end where the model ends them; expected --match or --accept instead")
        if output["as_json"] and (flags["format"] or flags["fields"] or output["output"]):
            raise UsageError("--json: expected alone, with all of a record; --format jsonl --fields has what it names")
        if self.settings is not None and not self.records["ordered"]:
            raise UsageError("--resume: records that were written --unordered have no place to go on from")

    def _to_request(self) -> RecordRequest:
        flags, records = self.flags, self.records
        seed = self.options["seed"] if self.settings is None else self.settings["seed"]
        prefix_file = flags["prefix_file"]
        return RecordRequest(
            count=self.options["count"],
            prefixes=[Prefix(self.prime)] if prefix_file is None else read_prefixes(prefix_file),
            fields=dict(map(_parse_field, flags["field_values"])),
            options=self.options | {"seed": seed, "stop": ()},
            length=self.options["length"],
            shard=_parse_shard(flags["shard"]),
            ordered=records["ordered"],
            unique=records["unique"],
            novel=flags["novel_against"] or bool(records["novel"]),
            accept=records["accept"],
            filters=create_filters(flags["filter"], records["filter_options"] or {}),
            max_tries=records["max_tries"],
            slots=records["slots"],
            keeps_tokens=self.output["as_json"],
        )

    def _open_file(self, path: Path, stream: RecordStream, record_format: RecordFormat) -> RecordFile:
        """Begin a file of records, with its settings beside it, or go on with one."""
        fingerprint = self.model.bundle.card.get("fingerprint")
        if self.settings is None:
            if path.is_file():
                raise UsageError(f"-o {path}: exists already; --resume goes on with it, or name another file")
            if not path.exists():  # a device has no settings beside it
                words = CommandWords.split(self.words).decisive
                settings = {"words": words, "seed": stream.plan.seed, "fingerprint": fingerprint}
                write_text(settings_path(path), json.dumps(settings, indent=1) + "\n")
            return RecordFile(path)
        if self.settings.get("fingerprint") != fingerprint:
            raise RunError(f"--resume: {self.model.path} is another model than the one that began {path}; use that one")
        output = RecordFile(path)
        stream.skip(output.read_whole(record_format), record_format.parse)
        return output


class StandardOutput:
    """Prints records on stdout."""

    is_empty = True

    def __init__(self, stream: RecordStream) -> None:
        self._stream = stream
        self._is_closed = False

    def write(self, text: str) -> None:
        """Print a whole record."""
        with self._report_closed():
            sys.stdout.write(text)

    def flush(self) -> None:
        """Give out what was printed."""
        with self._report_closed():
            sys.stdout.flush()

    def close(self) -> None:
        """Give out the last records."""
        if not self._is_closed:
            self.flush()

    @contextlib.contextmanager
    def _report_closed(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            self._is_closed = True
            say(f"stdout was closed by the program that reads it, after at most {self._stream.written:,} records")
            raise


def _write_out(
    stream: RecordStream,
    output: StandardOutput | RecordFile,
    beginning: str,
    format_record: Callable[[WrittenRecord], str],
) -> None:
    """Write all records, and say what was thrown away."""
    flushed_at = time.monotonic()
    is_terminal = isinstance(output, StandardOutput) and sys.stdout.isatty()
    with progress("writing", stream.total, "records", stream.written) as stream.bar, contextlib.closing(output):
        if beginning and output.is_empty:
            output.write(beginning)
        for record in stream:
            if is_terminal:
                stream.bar.close()
            output.write(format_record(record))
            if is_terminal or time.monotonic() - flushed_at > FLUSH_SECONDS:
                output.flush()
                flushed_at = time.monotonic()
    if stream.thrown_away:
        say(f"{stream.written:,} records; thrown away: {describe_counts(stream.thrown_away)}")


def _format_json(record: WrittenRecord) -> str:
    """Return a record as the line of ``--json``."""
    fields = {
        "number": record.number,
        "stream": record.stream,
        "seed": record.seed,
        "prime": record.prefix,
        "text": record.text[len(record.prefix) :],
        "finish": record.finish,
        "tokens": record.tokens,
        "logprobs": [round(logprob, 6) for logprob in record.logprobs],
    }
    return json.dumps(fields, ensure_ascii=False) + "\n"


def _parse_shard(text: str | None) -> tuple[int, int]:
    if text is None:
        return 0, 1
    number, _, shards = text.partition("/")
    try:
        return int(number), int(shards)
    except ValueError:
        raise UsageError(f"--shard {text}: expected a shard and their number, such as 0/8; they count from 0") from None


def _parse_field(text: str) -> tuple[str, str]:
    name, equals, setting = text.partition("=")
    if not equals:
        raise UsageError(f"--given {text}: expected a column and its text, such as city=Rome")
    return name, setting
