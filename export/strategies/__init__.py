"""Compiles the links of a sampling chain: runs their methods on arrays that record ONNX nodes."""
