"""The program that compiles what texts must match, for `gentext.plugins.server.worker.expressions`.

It reads jobs from stdin and writes their automata to stdout; with the end of stdin it ends.
"""

from __future__ import annotations

import contextlib
import os
import sys

import msgspec
import numpy as np

from gentext.errors import PrimeError, UsageError
from gentext.matching.byte_automaton import explain_too_large
from gentext.matching.constraints import Constraint, compile_here
from gentext.matching.expression_child import MAX_MEMORY
from gentext.plugins.server.worker.expressions import (
    CompiledArrays,
    CompileJob,
    Refusal,
    pack_arrays,
    read_frame,
    write_frame,
)

#: How much less the process counts than one that writes, where both want a core.
NICENESS = 5


def main() -> None:
    """Compile until stdin ends."""
    limit_process()
    decoder = msgspec.msgpack.Decoder(CompileJob)
    with contextlib.suppress(BrokenPipeError, KeyboardInterrupt):
        while (content := read_frame(sys.stdin.buffer)) is not None:
            write_frame(sys.stdout.buffer, compile_job(decoder.decode(content)))


def compile_job(job: CompileJob) -> CompiledArrays | Refusal:
    """Return the automaton of a job, or why there is none."""
    constraint = Constraint(job.title, job.expression, job.schema)
    is_allowed = np.frombuffer(job.is_allowed, np.bool_)
    try:
        return pack_arrays(compile_here(constraint, job.symbols, is_allowed, job.primes, job.max_table, job.seconds))
    except (UsageError, PrimeError) as error:
        return Refusal(str(error), isinstance(error, PrimeError))
    except MemoryError:
        return Refusal(f"{job.title}: {explain_too_large(job.seconds)}")


def limit_process() -> None:
    """Limit the memory of the process, and its share of the processor, where the operating system can."""
    with contextlib.suppress(ImportError, AttributeError, OSError, ValueError):  # on Windows, or macOS
        os.nice(NICENESS)
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))


if __name__ == "__main__":
    main()
