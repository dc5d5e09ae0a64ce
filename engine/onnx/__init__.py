"""ONNX files: read into the engine's graph, written from it, or run operator by operator as ONNX defines them."""
