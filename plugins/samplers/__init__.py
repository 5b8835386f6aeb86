"""Opens exported files and runs them with onnxruntime. (onnxruntime)

For authors of samplers: `open_model` opens a ``model.onnx``, from tokens to logits, and `open_file` opens that or a
``generator.onnx``. `gentext.stepping.generate_stepwise` writes text with an opened model.
"""

from gentext.plugins.samplers.session import GeneratorSession, Session, open_file, open_model

__all__ = ["GeneratorSession", "Session", "open_file", "open_model"]
