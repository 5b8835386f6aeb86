"""What a lower precision costs: the loss of two generators on the same held-out text."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from gentext.compiled import next_feeds, start_states
from gentext.describe import load_tokenizer
from gentext.errors import ExportError
from gentext.plugins.samplers.session import GeneratorSession, open_file

#: Symbols measured at most, and below which the figure is marked as noisy.
MOST, FEW = 100_000, 20_000
#: Streams that the text is read as, and positions a call.
ROWS, WINDOW = 64, 256


@dataclasses.dataclass(frozen=True)
class LossReport:
    """Nats a symbol of the file and of its fp32 twin."""

    loss: float
    reference: float
    symbols: int

    @property
    def cost(self) -> float:
        return self.loss - self.reference

    def card(self) -> dict[str, Any]:
        """Return what the file says about itself."""
        return {
            "precision_loss": round(self.cost, 6),
            "precision_symbols": self.symbols,
            "precision_noisy": self.symbols < FEW,
        }

    def __str__(self) -> str:
        noisy = ", noisy: few symbols" if self.symbols < FEW else ""
        return f"{self.cost:+.4f} nats a symbol against fp32 over {self.symbols:,} held-out symbols{noisy}"


def measure(plain: bytes, other: bytes, held_out: Path) -> LossReport:
    """Compare two generator files by scoring a text through their own arithmetic."""
    with tempfile.TemporaryDirectory() as folder:
        sessions = []
        for name, data in (("plain", plain), ("other", other)):
            path = Path(folder) / f"{name}.onnx"
            path.write_bytes(data)
            sessions.append(open_generator(path))
    bundle = sessions[0].bundle
    tokenizer = load_tokenizer(bundle.tokenizer.name, bundle.tokenizer.state)
    try:
        text = held_out.read_text(encoding="utf-8")
    except OSError as error:
        raise ExportError(
            f"{held_out}: cannot be read ({error.strerror}); a lower precision is measured on it"
        ) from None
    tokens = tokenizer.encode(text)[:MOST].astype(np.int64)
    reference, loss = (mean_loss(session, tokens) for session in sessions)
    return LossReport(loss, reference, len(tokens))


def open_generator(path: Path) -> GeneratorSession:
    """Open a generator on the CPU."""
    session = open_file(path, "cpu")
    assert isinstance(session, GeneratorSession)
    return session


def mean_loss(session: GeneratorSession, tokens: np.ndarray[Any, Any]) -> float:
    """Return nats a symbol over a text read as parallel streams, all symbols forced."""
    rows = max(1, min(ROWS, len(tokens) // WINDOW))
    streams = tokens[: len(tokens) // rows * rows].reshape(rows, -1).T
    feeds = start_states(session.signature, rows)
    feeds |= {"token": np.zeros(rows, np.int64), "fresh": np.ones(rows, np.bool_)}
    total = 0.0
    for begin in range(0, len(streams), WINDOW):
        forced = np.ascontiguousarray(streams[begin : begin + WINDOW])
        noise = np.zeros((*forced.shape, session.signature.columns), np.float32)
        results = session.call(feeds | {"forced": forced, "noise": noise})
        total -= float(results["logprobs"].sum(dtype=np.float64))
        feeds = next_feeds(session.signature, results)
    return total / streams.size
