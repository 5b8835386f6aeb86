"""How an exported file is opened and run with onnxruntime. (onnxruntime)"""
