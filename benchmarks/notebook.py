"""The notebook's way of training and of sampling, written anew in PyTorch. gentext is compared with it.

Training: one-hot windows built on the host, two LSTM layers, Adam, clipping, state carried along.
Sampling: one forward pass a character, softmax, top-k, numpy.random.choice on the host.

    python benchmarks/notebook.py train TEXT --steps 40
    python benchmarks/notebook.py sample --length 2000
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

STREAMS, WINDOW = 128, 100
TOP_K = 5


class CharNetwork(nn.Module):
    """One-hot input, stacked LSTM, dropout, one linear layer."""

    def __init__(self, symbols: int, hidden: int = 512, layers: int = 2, dropout: float = 0.5) -> None:
        super().__init__()
        self.symbols, self.hidden, self.layers = symbols, hidden, layers
        self.lstm = nn.LSTM(symbols, hidden, layers, dropout=dropout, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(hidden, symbols)

    def forward(self, x: torch.Tensor, state: Any) -> tuple[torch.Tensor, Any]:
        y, state = self.lstm(x, state)
        return self.out(self.dropout(y).reshape(-1, self.hidden)), state

    def zero_state(self, rows: int) -> tuple[torch.Tensor, torch.Tensor]:
        zeros = torch.zeros(self.layers, rows, self.hidden)
        return zeros, zeros.clone()


def one_hot(ids: np.ndarray[Any, Any], symbols: int) -> torch.Tensor:
    """Return float32 [..., symbols], built on the host as the notebook does."""
    flat = np.zeros((ids.size, symbols), np.float32)
    flat[np.arange(ids.size), ids.ravel()] = 1.0
    return torch.from_numpy(flat.reshape(*ids.shape, symbols))


def train(ids: np.ndarray[Any, Any], symbols: int, steps: int) -> tuple[list[float], float]:
    """Return the loss of every step, and characters a second over all of them."""
    network = CharNetwork(symbols)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    criterion = nn.CrossEntropyLoss()
    text = ids[: int(len(ids) * 0.9)]
    streams = text[: len(text) // (STREAMS * WINDOW) * STREAMS * WINDOW].reshape(STREAMS, -1)
    state = network.zero_state(STREAMS)
    losses, started_at = [], time.perf_counter()
    for step in range(steps):
        begin = step * WINDOW % (streams.shape[1] - WINDOW)
        x, y = streams[:, begin : begin + WINDOW], streams[:, begin + 1 : begin + WINDOW + 1]
        state = tuple(tensor.detach() for tensor in state)
        network.zero_grad()
        logits, state = network(one_hot(x, symbols), state)
        loss = criterion(logits, torch.from_numpy(y.astype(np.int64).ravel()))
        loss.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 5)
        optimizer.step()
        losses.append(loss.item())
    return losses, steps * STREAMS * WINDOW / (time.perf_counter() - started_at)


def sample(network: CharNetwork, length: int, start: int = 0) -> float:
    """Write characters one forward pass at a time; return characters a second."""
    network.eval()
    state: Any = network.zero_state(1)
    token = start
    started_at = time.perf_counter()
    for _ in range(length):
        state = tuple(tensor.detach() for tensor in state)
        logits, state = network(one_hot(np.array([[token]]), network.symbols), state)
        top_probabilities, top_tokens = torch.softmax(logits, dim=1).detach().topk(TOP_K)
        weights = top_probabilities.numpy().squeeze()
        token = int(np.random.choice(top_tokens.numpy().squeeze(), p=weights / weights.sum()))
    return length / (time.perf_counter() - started_at)


def sampling_loop(symbols: int, hidden: int, layers: int, length: int) -> tuple[Callable[[], float], int]:
    """Return a function that writes ``length`` characters and returns the rate, and the thread count that it uses.

    The count is the faster one of 1 and PyTorch's default.
    """
    network = CharNetwork(symbols, hidden, layers)

    def rate(threads: int) -> float:
        torch.set_num_threads(threads)
        return sample(network, length)

    counts = sorted({1, torch.get_num_threads()})
    rounds = [[rate(threads) for threads in counts] for _ in range(4)][1:]  # the first round is a warm-up
    rates = [statistics.median(rates) for rates in zip(*rounds, strict=True)]
    fastest = counts[rates.index(max(rates))]
    return lambda: rate(fastest), fastest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["train", "sample"])
    parser.add_argument("text", type=Path, nargs="?", help="a text file, for train")
    parser.add_argument("--steps", type=int, default=40)
    parser.add_argument("--length", type=int, default=2000)
    parser.add_argument("--symbols", type=int, default=83)
    parser.add_argument("--hidden", type=int, default=512)
    options = parser.parse_args()
    torch.manual_seed(0)
    if options.what == "sample":
        loop, threads = sampling_loop(options.symbols, options.hidden, 2, options.length)
        rate = statistics.median(loop() for _ in range(3))
        print(json.dumps({"characters_per_second": round(rate), "threads": threads}))
        return
    text = options.text.read_text(encoding="utf-8")
    symbols = sorted(set(text))
    ids = {symbol: index for index, symbol in enumerate(symbols)}
    losses, rate = train(np.array([ids[symbol] for symbol in text]), len(symbols), options.steps)
    every_tenth_loss = {step: round(losses[step - 1], 4) for step in range(10, options.steps + 1, 10)}
    print(json.dumps({"characters_per_second": round(rate), "losses": every_tenth_loss}))


if __name__ == "__main__":
    main()
