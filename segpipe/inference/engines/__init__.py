"""What runs a network: torch, ONNX Runtime or OpenVINO, single networks, ensembles and detectors."""
