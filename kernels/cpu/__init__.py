"""Convolution, ReLU, pooling, Gram matrices and losses in NumPy, each with its input gradient: see ``device.Cpu``."""
