"""What an exported file says about itself: its metadata, and the inputs and outputs of its graph.

Others use `metadata.Bundle`, `signature.signature` and `onnx_file.read_metadata`.
May import: files.

    metadata  the metadata of an exported file
    onnx_file  reads the metadata of an .onnx file quickly, without onnxruntime
    signature  inputs and outputs of a compiled generator
    boundary  the symbol between two records, which no text contains
    batch_size  how many texts of a file are written side by side
"""
