"""ONNX files as members: what they promise (contract), what runs them (runtimes), which belong together."""
