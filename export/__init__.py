"""Exports a trained model to ONNX files, each of which is checked against the model first. (torch, onnx, spox)

exporter
    Exports a run: calls all the others.
precision
    The loss that a lower precision costs, and the precision that is fastest on this machine.
verify
    Compares exported files with PyTorch, and with the chain in NumPy.
web
    Writes a folder in which a model writes in the browser; alone it needs none of the packages above.
web_runtime
    onnxruntime for browsers, as npm packs it.
proto
    Small operations on ONNX protobufs.
network
    The model without a chain: ``model.onnx``, and the graph of one step in fp32, fp16 and int8.
strategies
    Compiles the links of a sampling chain, which are written against the Array API, to nodes of a graph.
generator
    Joins step and chain in one graph that writes text: ``generator.onnx``.
"""
