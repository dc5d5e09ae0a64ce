"""ONNX's operators in the engine's terms, by family: each takes a node to what it adds to a ``Scope``."""
