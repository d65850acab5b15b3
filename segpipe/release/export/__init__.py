"""Export a trained model as a bundle: the ONNX graph, the choice of an inference engine, int8, golden images."""
