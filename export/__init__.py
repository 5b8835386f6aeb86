"""A trained model to ONNX files, each of which is checked against the model before it is kept. (torch, onnx, spox)

exporter
    From a run to its files.
precision
    What a lower precision costs, and which is fastest on this machine.
verify
    Exported files against PyTorch, and against the chain in NumPy.
proto
    Small operations on ONNX protobufs.
network
    The model by itself: ``model.onnx``, and one step of it in three precisions.
strategies
    The links of a sampling chain, written against the Array API, as nodes of a graph.
generator
    Step and chain in one graph that writes text: ``generator.onnx``.
"""
