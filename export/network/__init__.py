"""The graph of a model without a chain: over whole windows (model.onnx), or one step in fp32, fp16 or int8."""
