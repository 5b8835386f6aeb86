"""A trained model to ONNX, verified as soon as it is made."""
