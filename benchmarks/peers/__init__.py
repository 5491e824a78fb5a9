"""The same job by Keras, ONNX Runtime, PyTorch and OpenVINO alone: what the engine is compared with."""
