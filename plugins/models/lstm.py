"""The model lstm: stacked LSTM layers, as in the notebook, with options that improve on it. (torch)"""

from __future__ import annotations

import dataclasses
import warnings
from typing import Annotated, Literal

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from gentext.config import Fraction, NonNegative
from gentext.interfaces import StateSpec
from gentext.plugins.models.dropout import Dropout, draw_factors, drop_symbols, replace_symbols
from gentext.plugins.models.lstm_size import lstm_parameters, ngram_parameters
from gentext.plugins.models.ngrams import NgramEmbedding, NgramHash
from gentext.plugins.pytorch.device import check_memory
from gentext.plugins.pytorch.recurrent import RecurrentModel, TorchState


@dataclasses.dataclass(frozen=True)
class LSTMConfig:
    """Options of the model ``lstm``. The defaults are the notebook's network."""

    hidden: Annotated[int, msgspec.Meta(ge=1, le=65536)] = 512
    """Units of each layer."""
    layers: Annotated[int, msgspec.Meta(ge=1, le=64)] = 2
    """Number of LSTM layers, each of which reads the output of the one below."""
    embedding: NonNegative = 0
    """Size of the learned vector of each symbol; 0: one-hot input."""
    ngram_length: Annotated[int, msgspec.Meta(ge=0, le=64)] = 0
    """Symbols of the longest n-grams whose vectors the first layer reads too; 0 or 1: none. It needs an embedding."""
    ngram_rows: Annotated[int, msgspec.Meta(ge=1, le=2**24)] = 4096
    """Rows of the table of the n-grams of each length; n-grams that share a row share its vector."""
    ngram_embedding: Annotated[int, msgspec.Meta(ge=1, le=65536)] = 32
    """Size of the learned vector of an n-gram."""
    ngram_dropout: Fraction = 0.0
    """Share of the positions that read no n-grams, in training."""
    dropout: Fraction = 0.5
    """Share of activations dropped between layers and before the head, in training."""
    input_dropout: Fraction = 0.0
    """The same for the embedded input."""
    dropout_mask: Literal["position", "window"] = "position"
    """Whether each position of a window loses other activations, or all of them the same."""
    symbol_dropout: Fraction = 0.0
    """Share of the symbols whose input is dropped, wherever they stand in a row of a window."""
    weight_dropout: Fraction = 0.0
    """Share of the recurrent weights dropped in a training step."""
    input_noise: Fraction = 0.0
    """Share of the input symbols replaced by random ones of the text, in training; the targets stay."""
    norm: bool = False
    """Layer normalisation after each layer."""
    skip: bool = False
    """The head sees the sum of all layers, not the last one alone."""
    tuned_init: bool = False
    """Forget bias 1, orthogonal recurrent weights, output bias = log of the symbols' frequencies."""

    def __post_init__(self) -> None:
        if self.ngram_length > 1 and not self.embedding:
            raise ValueError(
                f"ngram_length = {self.ngram_length} with embedding = 0: expected an embedding, or an ngram_length of 0"
            )


#: Symbols up to which an exported step looks up the product of embedding and input weights in a table.
MAX_TABLE_SYMBOLS = 512
#: Bytes of a weight while the model is trained: itself, its copy in a checkpoint, Adam's two moments, of 4 bytes each.
BYTES_PER_WEIGHT = 16


def count_parameters(config: LSTMConfig, vocab_size: int) -> int:
    """Return how many weights a network will have, without the few of its norms."""
    network = lstm_parameters(config.hidden, config.layers, config.embedding, vocab_size)
    return network + ngram_parameters(config.ngram_length, config.ngram_rows, config.ngram_embedding, config.hidden)


def describe_state(config: LSTMConfig, networks: int = 1) -> tuple[StateSpec, ...]:
    """Return the state of networks side by side; see `LSTMModel`. All of them read the same n-grams."""
    shape = (networks * config.layers, None, config.hidden)
    specs: tuple[StateSpec, ...] = (StateSpec("h", shape), StateSpec("c", shape))
    if config.ngram_length > 1:
        specs += (StateSpec("hashes", (1, None, config.ngram_length - 1), "int64"),)
    return specs


class LSTMModel(RecurrentModel):
    """Hochreiter and Schmidhuber, "Long short-term memory", 1997, by torch.nn.LSTM.

    State: ``h`` and ``c``, float32 [layers, B, hidden], and where the model reads n-grams the ``hashes`` of the last
    symbols, int64 [1, B, ngram_length - 1]. Each layer is its own nn.LSTM, so that norm and skip fit between; kernels
    and cost are those of one module with several layers.
    """

    Config = LSTMConfig

    def __init__(self, config: LSTMConfig, vocab_size: int) -> None:
        super().__init__()
        self.config, self.vocab_size = config, vocab_size
        check_memory(count_parameters(config, vocab_size), BYTES_PER_WEIGHT, torch.device("cpu"), "to hold")
        self.state_spec = describe_state(config)
        self.embedding = nn.Embedding(vocab_size, config.embedding) if config.embedding else None
        #: Size of what the first layer reads of the symbol itself; what it reads of the n-grams follows.
        self.symbol_size = config.embedding or vocab_size
        input_size = self.symbol_size
        self.ngram_hash: NgramHash | None = None
        if config.ngram_length > 1:
            self.ngram_hash = NgramHash(vocab_size, config.ngram_length, config.ngram_rows)
            self.ngrams = NgramEmbedding(
                config.ngram_length, config.ngram_rows, config.ngram_embedding, config.ngram_dropout
            )
            input_size += self.ngrams.size
        self.lstms = nn.ModuleList(
            nn.LSTM(config.hidden if layer else input_size, config.hidden, batch_first=True)
            for layer in range(config.layers)
        )
        self.norms = nn.ModuleList(
            nn.LayerNorm(config.hidden) if config.norm else nn.Identity() for _ in range(config.layers)
        )
        per_window = config.dropout_mask == "window"
        self.input_dropout = Dropout(config.input_dropout, per_window=per_window)
        self.dropout = Dropout(config.dropout, per_window=per_window)
        self.head = nn.Linear(config.hidden, vocab_size)
        if config.tuned_init:
            self._initialise_weights()
        if config.weight_dropout:
            # On a GPU PyTorch warns that it must copy the weights together in every call. They are new in each anyway.
            warnings.filterwarnings("ignore", "RNN module weights are not part of single contiguous chunk")

    def prepare(self, counts: NDArray[np.int64]) -> None:
        """Set the output bias to the logarithms of the symbols' frequencies; counts [V] of the training text."""
        if self.config.tuned_init:
            smoothed_counts = counts.astype(np.float64) + 1
            with torch.no_grad():
                self.head.bias.copy_(
                    torch.from_numpy(np.log(smoothed_counts / smoothed_counts.sum()).astype(np.float32))
                )

    def symbol_axes(self) -> dict[str, int]:
        """Return the axis of the symbols in each tensor that has a row for each; see `SupportsSymbolAxes`."""
        input_axes = {"lstms.0.weight_ih_l0": 1} if self.embedding is None else {"embedding.weight": 0}
        if self.ngram_hash is not None:
            input_axes["ngram_hash.codes"] = 0
        return {**input_axes, "head.weight": 0, "head.bias": 0}

    def scale_logits(self, factor: float) -> None:
        """Multiply all logits by a factor from now on; see `SupportsLogitScale`."""
        with torch.no_grad():
            self.head.weight.mul_(factor)
            self.head.bias.mul_(factor)

    def hidden_matrices(self) -> dict[str, int]:
        """Return the weights between hidden units, each with its four gates; see `SupportsHiddenMatrices`.

        The first layer's input weights are among them if the model has an embedding; else they act as the embedding.
        """
        parameters = self.lstms.named_parameters(prefix="lstms")
        names = [name for name, parameter in parameters if parameter.dim() == 2]
        if self.embedding is None:
            names.remove("lstms.0.weight_ih_l0")
        return dict.fromkeys(names, 4)

    def forward(self, tokens: Tensor, state: TorchState) -> tuple[Tensor, TorchState]:
        """tokens [B, T] and the state give logits [B, T, V] and the new state."""
        h, c, *hashes = state
        if self.training and self.config.input_noise:
            tokens = replace_symbols(tokens, self.config.input_noise)
        x = self._embed_tokens(tokens)
        if self.training and self.config.symbol_dropout:
            x = drop_symbols(x, tokens, self.vocab_size, self.config.symbol_dropout)
        if self.ngram_hash is not None:
            rows, *hashes = self.ngram_hash(tokens, *hashes)
            x = torch.cat([x, self.ngrams(rows)], dim=2)
        output_sum: Tensor | None = None
        new_h, new_c = [], []
        for layer, (lstm, norm) in enumerate(zip(self.lstms, self.norms, strict=True)):
            x, (h_layer, c_layer) = self._read_layer(
                lstm,
                self.dropout(x) if layer else self.input_dropout(x),
                (h[layer : layer + 1], c[layer : layer + 1]),
            )
            x = norm(x)
            output_sum = x if output_sum is None or not self.config.skip else output_sum + x
            new_h.append(h_layer)
            new_c.append(c_layer)
        logits = self.head(self.dropout(output_sum))
        return logits, (torch.cat(new_h), torch.cat(new_c), *hashes)

    def step(self, tokens: Tensor, state: TorchState) -> tuple[Tensor, TorchState]:
        """One position in plain matrix products, one for each layer; layer 0 reads the symbol's part of it in a table.

        With many symbols that table would be larger than all else in an exported file, so layer 0 then reads the
        symbol's embedding as the other layers read their inputs.
        What depends on weights alone (the gates' order, the table of layer 0) an export computes once.
        """
        h, c, *hashes = state
        rows, new_hashes = self.step_hashes(tokens, hashes)
        output, new_h, new_c = self.step_layers(tokens, rows, h, c)
        return self.head(output), (new_h, new_c, *new_hashes)

    def step_hashes(self, tokens: Tensor, hashes: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Return the rows of the n-grams that end at one position, if the model reads any, and the new hashes."""
        if self.ngram_hash is None:
            return [], []
        rows, new_hashes = self.ngram_hash.step(tokens, *hashes)
        return [rows], [new_hashes]

    def step_layers(self, tokens: Tensor, rows: list[Tensor], h: Tensor, c: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return what the head reads at one position [B, hidden], and the new h and c."""
        reads_table = self.embedding is None or self.vocab_size <= MAX_TABLE_SYMBOLS
        inputs = [] if reads_table else [self._embed_tokens(tokens)]
        inputs += [self.ngrams.step(ngram_rows) for ngram_rows in rows]
        output_sum: Tensor | None = None
        new_h, new_c = [], []
        for layer, (lstm, norm) in enumerate(zip(self.lstms, self.norms, strict=True)):
            w_in, w_state, bias_in, bias_state = (
                self._reorder_gates(parameter) for _, parameter in lstm.named_parameters()
            )
            bias = bias_in + bias_state
            if layer == 0 and reads_table:
                bias = functional.embedding(tokens, self._input_rows(w_in[:, : self.symbol_size]) + bias)
                w_in = w_in[:, self.symbol_size :]
            weights = torch.cat([w_in, w_state], dim=1)
            gates = torch.addmm(bias, torch.cat([*inputs, h[layer]], dim=1), weights.t())
            ifo, g = gates.split([3 * self.config.hidden, self.config.hidden], dim=1)
            i, f, o = torch.sigmoid(ifo).chunk(3, dim=1)
            c_layer = f * c[layer] + i * torch.tanh(g)
            h_layer = o * torch.tanh(c_layer)
            x = norm(h_layer)
            inputs = [x]
            output_sum = x if output_sum is None or not self.config.skip else output_sum + x
            new_h.append(h_layer)
            new_c.append(c_layer)
        assert output_sum is not None
        return output_sum, torch.stack(new_h), torch.stack(new_c)

    def _embed_tokens(self, tokens: Tensor) -> Tensor:
        """Return the input of the first layer [B, T, embedding], or [B, T, V] without an embedding."""
        if self.embedding is None:
            return functional.one_hot(tokens, self.vocab_size).to(self.head.weight.dtype)
        embedded: Tensor = self.embedding(tokens)
        return embedded

    def _read_layer(self, lstm: nn.Module, x: Tensor, state: TorchState) -> tuple[Tensor, TorchState]:
        """Return the outputs [B, T, hidden] of a layer for its inputs, and its new h and c [1, B, hidden].

        In training some recurrent weights may be dropped, the same ones at all positions: S. Merity and others,
        "Regularizing and optimizing LSTM language models", 2017, section 2. torch.lstm is what torch.nn.LSTM calls; it
        takes the weights as arguments.
        """
        if not self.training or not self.config.weight_dropout:
            output, new_state = lstm(x, state)
            return output, new_state
        w_in, w_state, bias_in, bias_state = (parameter for _, parameter in lstm.named_parameters())
        factors = draw_factors(w_state.shape, self.config.weight_dropout, w_state)
        output, h, c = torch.lstm(
            x,
            state,
            (w_in, w_state * factors, bias_in, bias_state),
            has_biases=True,
            num_layers=1,
            dropout=0.0,
            train=True,
            bidirectional=False,
            batch_first=True,
        )
        return output, (h, c)

    def _reorder_gates(self, weight: Tensor) -> Tensor:
        """Return a weight with its gates in the order i, f, o, g: so one sigmoid serves the first three."""
        hidden = self.config.hidden
        return torch.cat([weight[: 2 * hidden], weight[3 * hidden :], weight[2 * hidden : 3 * hidden]])

    def _input_rows(self, weight: Tensor) -> Tensor:
        """Return [V, 4 * hidden]: what each symbol adds to the first layer's gates, by its columns of the weights."""
        if self.embedding is None:
            return weight.t()
        return functional.linear(self.embedding.weight, weight)

    def _initialise_weights(self) -> None:
        """Make the recurrent weights orthogonal, the bias of the forget gates 1 and all other biases of layers 0."""
        hidden = self.config.hidden
        with torch.no_grad():
            for lstm in self.lstms:
                _, w_state, bias_in, bias_state = (parameter for _, parameter in lstm.named_parameters())
                bias_in.zero_()
                bias_state.zero_()
                bias_in[hidden : 2 * hidden] = 1.0  # the forget gate's part
                for gate in w_state.chunk(4):
                    nn.init.orthogonal_(gate)
