"""A trained model as a bundle: ONNX graph, engine selection, int8, golden images."""
