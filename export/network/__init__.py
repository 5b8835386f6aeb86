"""The model by itself as a graph: whole windows (model.onnx), or one step in fp32, fp16 or int8."""
