"""What runs a network: torch, ONNX Runtime or OpenVINO; one network or an ensemble."""
