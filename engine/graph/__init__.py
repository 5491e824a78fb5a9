"""An ensemble as one ONNX graph, raw pixels in, labels out: what ``exporters pack`` writes and a GPU runs."""
