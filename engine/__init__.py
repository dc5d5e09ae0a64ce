"""Style transfer on a hand-written engine: ONNX import, network, losses, objective, optimizers."""

from engine.errors import ModelError, NonFiniteError
from engine.load import load_network
from engine.network import Network
from engine.objective import Objective
from engine.optimize import Result, minimize
from engine.stylize import Settings, stylize

__all__ = [
    "ModelError",
    "Network",
    "NonFiniteError",
    "Objective",
    "Result",
    "Settings",
    "load_network",
    "minimize",
    "stylize",
]
