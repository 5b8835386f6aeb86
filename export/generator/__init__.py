"""generator.onnx: the step of a model and its sampling chain in one graph that writes text."""
