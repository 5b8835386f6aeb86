"""The networks of the matrix of exports: untrained, and each traced once."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from gentext.export.network.step import step_graph
from gentext.exported.boundary import BoundaryTokenizer, RecordsMeta
from gentext.exported.metadata import Bundle, StateMeta, TokenizerMeta
from gentext.files.versions import installed_version
from gentext.interfaces import Tokenizer
from gentext.plugins.models.lstm import LSTMConfig, LSTMModel
from gentext.plugins.models.lstm_ensemble import LSTMEnsemble, LSTMEnsembleConfig
from gentext.plugins.tokenizers.byte import ByteTokenizer
from gentext.plugins.tokenizers.char import CharTokenizer

#: The options of each input of the first layer. The table of the n-grams is just large enough for int8.
INPUTS: Mapping[str, Mapping[str, int]] = {
    "one-hot": {"embedding": 0},
    "embedding": {"embedding": 16},
    "n-grams": {"embedding": 16, "ngram_length": 3, "ngram_rows": 64, "ngram_embedding": 8},
}
#: Options that count in training alone.
LOSSES = {
    **dict.fromkeys(("dropout", "input_dropout", "ngram_dropout"), 0.2),
    **dict.fromkeys(("symbol_dropout", "weight_dropout", "input_noise"), 0.1),
    "dropout_mask": "window",
}
#: The largest number of the tables that layer 0 reads: int8 has another scale for those above 1.
LARGEST = {"below 1": 0.9, "above 1": 3.0}
FEW_SYMBOLS = "\n ,.abcdefghijklmnopqrst"
#: With so many symbols layer 0 reads the embedding, not a table of its products; some characters are unknown.
MANY_SYMBOLS = FEW_SYMBOLS + "".join(map(chr, range(0x400, 0x400 + 600 - len(FEW_SYMBOLS))))
SYMBOLS: Mapping[str, Tokenizer] = {
    "few": CharTokenizer(FEW_SYMBOLS, with_unknown=False),
    "many": CharTokenizer(MANY_SYMBOLS, with_unknown=True),
    "bytes": ByteTokenizer(),
}


@dataclasses.dataclass(frozen=True)
class Network:
    """The values of all factors of a network."""

    members: int
    layers: int
    hidden: int
    input: str
    norm: bool
    skip: bool
    tuned_init: bool
    losses: bool
    table: str
    symbols: str
    records: bool

    FACTORS: ClassVar[Mapping[str, tuple[Any, ...]]] = {
        "members": (1, 2),
        "layers": (1, 2, 3),
        "hidden": (48, 8),  # products of 8 units are too small for int8, but for the head of many symbols
        "input": tuple(INPUTS),
        "norm": (False, True),
        "skip": (False, True),
        "tuned_init": (False, True),
        "losses": (False, True),
        "table": tuple(LARGEST),
        "symbols": tuple(SYMBOLS),
        "records": (False, True),
    }
    #: The size of the notebook's network.
    NOTEBOOK: ClassVar[Network]

    def values(self) -> dict[str, Any]:
        """Return the value of each factor."""
        return dataclasses.asdict(self)

    @property
    def has_int8_products(self) -> bool:
        """Whether any product is large enough for int8."""
        return self.hidden > 8 or self.symbols != "few"

    def config(self) -> LSTMConfig:
        """Return the options of the model."""
        options: dict[str, Any] = {**INPUTS[self.input], **(LOSSES if self.losses else {})}
        for name in ("hidden", "layers", "norm", "skip", "tuned_init"):
            options[name] = getattr(self, name)
        return LSTMConfig(**options) if self.members == 1 else LSTMEnsembleConfig(**options, members=self.members)

    def __str__(self) -> str:
        flags = [name for name in ("norm", "skip", "tuned_init", "losses", "records") if getattr(self, name)]
        parts = [f"{self.members}x{self.layers}x{self.hidden}", self.input, self.table, self.symbols, *flags]
        return "-".join(parts).replace(" ", "")


Network.NOTEBOOK = Network(1, 2, 512, "one-hot", False, False, False, False, "below 1", "few", False)


@dataclasses.dataclass(frozen=True)
class BuiltNetwork:
    """A network, and the trace of its step."""

    model: LSTMModel | LSTMEnsemble
    tokenizer: Tokenizer
    bundle: Bundle
    step: onnx.ModelProto

    def logits(self, tokens: NDArray[np.int64]) -> NDArray[np.float32]:
        """Return the logits [N, T, V] of PyTorch after each of the tokens [N, T], from the initial state."""
        with torch.no_grad():
            logits: NDArray[np.float32] = self.model(torch.from_numpy(tokens), self.model.initial_state(len(tokens)))[
                0
            ].numpy()
        return logits


def build_network(network: Network) -> BuiltNetwork:
    """Return a network with the same random weights each time."""
    tokenizer = SYMBOLS[network.symbols]
    if network.records:
        tokenizer = BoundaryTokenizer(tokenizer)
    config = network.config()
    with torch.random.fork_rng([]):
        torch.manual_seed(1)
        if isinstance(config, LSTMEnsembleConfig):
            model: LSTMModel | LSTMEnsemble = LSTMEnsemble(config, tokenizer.vocab_size)
        else:
            model = LSTMModel(config, tokenizer.vocab_size)
        model.prepare(np.arange(tokenizer.vocab_size))
        with torch.no_grad():
            for member in model.members if isinstance(model, LSTMEnsemble) else [model]:
                set_weights(member, LARGEST[network.table])
    bundle = describe_network(network, model.eval(), tokenizer)
    with torch.no_grad():
        return BuiltNetwork(model, tokenizer, bundle, step_graph(model, bundle))


def set_weights(member: LSTMModel, largest: float) -> None:
    """Let ``largest`` be the largest number of each table that layer 0 reads, and let all inputs change the logits."""
    w_in, _, *biases = member.lstms[0].parameters()
    w_symbol = w_in[:, : member.symbol_size]
    if member.embedding is not None:
        member.embedding.weight.mul_(largest / member.embedding.weight.abs().max())
    table = member._input_rows(w_symbol) + sum(biases)
    for weights in (w_symbol, *biases):
        weights.mul_(largest / table.abs().max())
    if member.ngram_hash is not None:
        member.ngrams.table.weight.uniform_(-0.5, 0.5)  # the vectors are zeros before training
        w_in[:, member.symbol_size :].mul_(4)
    member.head.weight.mul_(8)


def describe_network(network: Network, model: LSTMModel | LSTMEnsemble, tokenizer: Tokenizer) -> Bundle:
    """Return the metadata of a network, as those of a run's model, without a chain."""
    states = [
        StateMeta.from_row(spec, np.take(state.numpy(), 0, axis=spec.batch_axis))
        for spec, state in zip(model.state_spec, model.initial_state(1), strict=True)
    ]
    name = "byte" if network.symbols == "bytes" else "char"
    boundary = tokenizer.vocab_size - 1
    return Bundle(
        kind="model",
        tokenizer=TokenizerMeta(name, tokenizer.state(), tokenizer.unknown),
        token_bytes=[tokenizer.token_bytes(token) for token in range(tokenizer.vocab_size)],
        states=states,
        start=boundary if network.records else 0,
        chain=[],
        card={
            "config": {"model": dataclasses.asdict(model.config)},
            "versions": {name: installed_version(name) for name in ("gentext", "torch", "onnx")},
        },
        records=RecordsMeta(boundary, 20, "lines", never_empty=True) if network.records else None,
    )
