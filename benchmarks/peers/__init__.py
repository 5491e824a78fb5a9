"""The same job by plain Keras, ONNX Runtime, PyTorch and OpenVINO, for comparison with the engine."""
