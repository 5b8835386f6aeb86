"""How exported files are opened and run with onnxruntime. (onnxruntime)

For authors of samplers: `open_model` opens a ``model.onnx``, from tokens to logits, and `open_file` that or a
``generator.onnx``. With `gentext.stepping.generate_stepwise` a model becomes a sampler.
"""

from gentext.plugins.samplers.session import GeneratorSession, Session, open_file, open_model

__all__ = ["GeneratorSession", "Session", "open_file", "open_model"]
