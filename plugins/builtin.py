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
    register(
        "records", "gentext.plugins.batchers.records:RecordBatcher", summary="records of like length, each state fresh"
    )


@hookimpl
def register_models(register: Register) -> None:
    register("lstm", "gentext.plugins.models.lstm:LSTMModel", summary="stacked LSTM layers over one-hot or embedding")
    register(
        "lstm_ensemble",
        "gentext.plugins.models.lstm_ensemble:LSTMEnsemble",
        summary="LSTM networks that learn alone and predict together",
    )


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
    register("match", "gentext.plugins.strategies.match:Match", summary="texts that match an expression, whole")
    # In the order in which they stand in a chain of all of them, within their places: that of llama.cpp.
    register("bias", "gentext.plugins.strategies.bias:Bias", summary="chosen symbols more or less probable")
    register("ban", "gentext.plugins.strategies.ban:Ban", summary="characters that are never written")
    register(
        "penalties",
        "gentext.plugins.strategies.penalties:Penalties",
        summary="repeat, frequency and presence penalties",
    )
    register("dry", "gentext.plugins.strategies.dry:Dry", summary="penalise what continues a long repetition")
    register(
        "no_repeat_ngram",
        "gentext.plugins.strategies.no_repeat_ngram:NoRepeatNgram",
        summary="never write the same n symbols twice",
    )
    register("top_n_sigma", "gentext.plugins.strategies.top_n_sigma:TopNSigma", summary="keep logits near the largest")
    register("top_k", "gentext.plugins.strategies.top_k:TopK", summary="keep the k most probable symbols")
    register("typical", "gentext.plugins.strategies.typical:Typical", summary="keep symbols of typical surprise")
    register("top_p", "gentext.plugins.strategies.top_p:TopP", summary="keep a share p of the probability")
    register("min_p", "gentext.plugins.strategies.min_p:MinP", summary="keep what is probable enough beside the best")
    register("top_h", "gentext.plugins.strategies.top_h:TopH", summary="keep a share of the entropy")
    register("p_less", "gentext.plugins.strategies.p_less:PLess", summary="keep what is likelier than a coincidence")
    register("epsilon", "gentext.plugins.strategies.epsilon:Epsilon", summary="keep what has some probability")
    register("eta", "gentext.plugins.strategies.eta:Eta", summary="keep some probability, less where many are possible")
    register("xtc", "gentext.plugins.strategies.xtc:XTC", summary="now and then leave out the most probable symbols")
    register("temperature", "gentext.plugins.strategies.temperature:Temperature", summary="bolder or more careful")
    register("schedule", "gentext.plugins.strategies.schedule:Schedule", summary="a temperature along the text")
    register("mirostat", "gentext.plugins.strategies.mirostat:Mirostat", summary="keep the surprise near a target")
    register(
        "adaptive_p", "gentext.plugins.strategies.adaptive_p:AdaptiveP", summary="prefer symbols near a probability"
    )
