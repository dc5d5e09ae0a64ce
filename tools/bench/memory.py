"""The memory of a program, each in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from engine.objective import Objective
from engine.ops import Array
from tools.bench.programs import ENGINE, TORCH, Evaluate, build_twin, evaluation
from tools.media.memory import kernel_bytes
from tools.models.subject import LAYERS, Setup, build_network, build_objective, pictures
from tools.models.torch_vgg import import_torch


@dataclass(frozen=True)
class Memory:
    """Resident memory of a process that evaluates at one size, in bytes.

    Parameters
    ----------
    size : side of the square image in pixels.
    program : who.
    imports : after the imports, before anything is built.
    ready : with the weights and the losses' targets, before the first evaluation.
    peak : the largest during two evaluations, or, where ``whole_process``, since the process began.
    whole_process : whether the system tells the peak of the whole process only.
    estimate : what the engine's own estimate gives for ``peak - imports``; None for the others.
    """

    size: int
    program: str
    imports: int
    ready: int
    peak: int
    whole_process: bool
    estimate: int | None


def measure_memory(setup: Setup, size: int, program: str) -> Memory:
    """Evaluate in a new process and return its memory.

    Raises ValueError when that process fails, or the system tells nobody's memory.
    """
    command = [
        *(sys.executable, "-m", "tools.bench", "--memory-of", program, "--size", str(size), "--model", setup.model),
        *("--pooling", setup.pooling, "--convolution", setup.convolution, "--seed", str(setup.seed)),
        *(("--width", str(setup.width)) if setup.model == "random" else ()),
        *(() if setup.threads is None else ("--threads", str(setup.threads))),
        *(() if setup.preprocessing is None else ("--preprocessing", setup.preprocessing)),
    ]
    # The new process must find this package wherever it was imported from.
    paths = [str(Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, paths))}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode < 0:
        raise ValueError(
            f"the process that measures the memory of {program} at {size} pixels was killed by signal "
            f"{-done.returncode}: most likely there is not enough memory, choose a smaller --size"
        )
    if done.returncode:
        reason = (done.stderr.strip().splitlines() or ["no reason given"])[-1].removeprefix("bench: ")
        raise ValueError(f"the memory of {program} at {size} pixels cannot be measured: {reason}")
    return Memory(**json.loads(done.stdout))


def memory_of_this_process(setup: Setup, size: int, program: str) -> Memory:
    """Evaluate here and return this process's memory; what the new process of ``measure_memory`` runs."""
    if program != ENGINE:
        import_torch()
    imports = _resident_memory()
    network = build_network(setup)
    content, style, image = pictures(size, setup.seed)
    estimate = None
    evaluate: Evaluate
    if program == ENGINE:
        network = network.compact(LAYERS)
        objective = build_objective(network, content, style)
        layers = objective.layers
        estimate = network.memory(size, size, layers) + network.weight_bytes(layers)
        evaluate = _evaluation_of_engine(objective, image)
    else:
        evaluate = evaluation(build_twin(network, content, style, TORCH[program]), image)
    # PyTorch has copies of the weights, and a run would not keep the images.
    del network, content, style, image
    whole_process = not _forget_peak()
    ready = _resident_memory()
    # What is made once, such as the turned weights, is made in the first evaluation and there in the second.
    for _ in range(2):
        evaluate()
    return Memory(size, program, imports, ready, _peak_memory(), whole_process, estimate)


def _evaluation_of_engine(objective: Objective, image: Array) -> Evaluate:
    return lambda: objective(image)


def _forget_peak() -> bool:
    """Let the peak of this process begin anew; return whether the system can do that."""
    try:
        # Linux: "5" sets VmHWM back to VmRSS (man 5 proc).
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return kernel_bytes(Path("/proc/self/status"), "VmHWM") is not None


def _resident_memory() -> int:
    """Return the bytes this process has in memory, or its peak so far where the system tells that only."""
    resident = kernel_bytes(Path("/proc/self/status"), "VmRSS")
    return _peak_memory() if resident is None else resident


def _peak_memory() -> int:
    # Linux's ru_maxrss is of no use here: a process inherits that of the one it was started from (man 2 getrusage).
    peak = kernel_bytes(Path("/proc/self/status"), "VmHWM")
    if peak is not None:
        return peak
    try:
        import resource
    except ImportError:
        raise ValueError("this system does not tell how much memory a process takes") from None
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024
