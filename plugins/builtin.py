"""Registers the built-in components, through the same hooks as any other plugin."""

from __future__ import annotations

from gentext.hookspecs import hookimpl
from gentext.registry import Register


@hookimpl
def register_tokenizers(register: Register) -> None:
    register("char", "gentext.plugins.tokenizers.char:CharTokenizer", summary="one symbol a character")
    register("byte", "gentext.plugins.tokenizers.byte:ByteTokenizer", summary="one symbol a byte of UTF-8")


@hookimpl
def register_batchers(register: Register) -> None:
    register("stream", "gentext.plugins.batchers.stream:StreamBatcher", summary="parallel streams, carried state")


@hookimpl
def register_models(register: Register) -> None:
    register("lstm", "gentext.plugins.models.lstm:LSTMModel", summary="stacked LSTM layers over one-hot or embedding")


@hookimpl
def register_trainers(register: Register) -> None:
    register(
        "bptt", "gentext.plugins.trainers.bptt:BPTTTrainer", summary="truncated back-propagation with carried state"
    )


@hookimpl
def register_samplers(register: Register) -> None:
    register("onnx", "gentext.plugins.samplers.onnx:OnnxSampler", summary="an exported file, with onnxruntime")
    register("torch", "gentext.plugins.pytorch.sampler:TorchSampler", summary="a run's best checkpoint, with PyTorch")


@hookimpl
def register_strategies(register: Register) -> None:
    register("top_k", "gentext.plugins.strategies.top_k:TopK", summary="keep the k most probable symbols")
    register("top_p", "gentext.plugins.strategies.top_p:TopP", summary="keep a share p of the probability")
    register("min_p", "gentext.plugins.strategies.min_p:MinP", summary="keep what is probable enough beside the best")
    register("temperature", "gentext.plugins.strategies.temperature:Temperature", summary="bolder or more careful")
    register(
        "penalties",
        "gentext.plugins.strategies.penalties:Penalties",
        summary="repeat, frequency and presence penalties",
    )
