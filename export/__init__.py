"""A trained model to ONNX files, each of which is checked against the model before it is kept. (torch, onnx, spox)

network
    The model by itself: ``model.onnx``, and one step of it in three precisions.
strategies
    A link of the sampling chain, written against the Array API, as nodes of a graph.
generator
    Step and chain in one graph that writes text: ``generator.onnx``.
"""
