"""Style transfer on a hand-written engine: ONNX import, network, losses, objective, optimisers."""

from engine.errors import ModelError, NonFiniteError
from engine.network import Network, load_network
from engine.objective import Objective

__all__ = ["ModelError", "Network", "NonFiniteError", "Objective", "load_network"]
