"""CUDA sources as text: where they lie, what their kernels take, and whether arguments fit.

A ``.cu`` file is compiled with those of ``COMMON`` before it and its element types as macros, so that there is one
source for float32 and float16. A kernel is declared as ``extern "C" __global__ void name(type name, ...)``; the
declaration is the only description of its arguments, and every launch is checked against it.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np

FOLDER = Path(__file__).parent

COMMON = ("prelude.cu", "warp.cu")
"""What all sources are compiled behind."""

MAX_GRID = (2**31 - 1, 65535, 65535)
MAX_THREADS = 1024
"""Limits of a launch on every card of compute capability 7.0 and later (CUDA C++ Programming Guide, table of technical
specifications per compute capability)."""

C_TYPES: dict[str, np.dtype[Any]] = {
    "float": np.dtype(np.float32),
    "double": np.dtype(np.float64),
    "half": np.dtype(np.float16),
    "int": np.dtype(np.int32),
    "unsigned int": np.dtype(np.uint32),
    "unsigned char": np.dtype(np.uint8),
    "unsigned short": np.dtype(np.uint16),
}
"""The element types that kernels use."""

_HALF_OR_FLOAT = (np.dtype(np.float32), np.dtype(np.float16))

MACRO_TYPES: Mapping[str, tuple[np.dtype[Any], ...]] = {
    "REAL": _HALF_OR_FLOAT,
    "OTHER": _HALF_OR_FLOAT,
    "OUTPUT": _HALF_OR_FLOAT,
    "TAP": (np.dtype(np.uint8), np.dtype(np.uint16)),
}
"""The element types that each macro stands for."""

_LIMITS = {dtype: (np.iinfo(dtype).min, np.iinfo(dtype).max) for dtype in C_TYPES.values() if dtype.kind in "iu"}

TENSOR_MAP, TENSOR_MAP_BYTES = "TensorMap", 128
"""What describes an array to the copy engine of compute capability 9.0: passed by value."""

_KERNEL = re.compile(r'extern "C" __global__ void (?:__launch_bounds__\([^)]*\) )?(\w+)\(([^)]*)\)')


@dataclass(frozen=True)
class Parameter:
    """One parameter of a kernel.

    Parameters
    ----------
    name : as declared.
    type : as declared without ``const``, ``*`` and ``__restrict__``: a key of ``C_TYPES`` or a macro.
    pointer : whether it is an array.
    constant : whether the kernel promises not to write to the array.
    """

    name: str
    type: str
    pointer: bool
    constant: bool


@dataclass(frozen=True)
class Kernel:
    """A kernel to be launched.

    Parameters
    ----------
    file : of the source, in this folder.
    name : of the function.
    types : element type of each macro that the source uses.
    """

    file: str
    name: str
    types: tuple[tuple[str, np.dtype[Any]], ...]

    @cached_property
    def parameters(self) -> tuple[Parameter, ...]:
        """The declared parameters."""
        return declared(self.file)[self.name]

    @cached_property
    def dtypes(self) -> tuple[np.dtype[Any] | None, ...]:
        """The type of each parameter; None for a tensor map."""
        of_names = C_TYPES | dict(self.types)
        return tuple(
            None if parameter.type == TENSOR_MAP else of_names[parameter.type] for parameter in self.parameters
        )

    def checked(
        self, grid: tuple[int, int, int], block: tuple[int, int, int], arguments: Sequence[Any]
    ) -> tuple[Any, ...]:
        """Return the arguments with numbers in their declared types.

        Raises TypeError or ValueError when they do not fit the declaration or the launch exceeds a card's limits: CuPy
        passes on whatever it is given.
        """
        where = f"kernel {self.name!r}"
        if min(grid + block) < 1 or grid[0] > MAX_GRID[0] or grid[1] > MAX_GRID[1] or grid[2] > MAX_GRID[2]:
            raise ValueError(f"{where}: a grid of {grid} blocks of {block} threads cannot be launched")
        if block[0] * block[1] * block[2] > MAX_THREADS:
            raise ValueError(f"{where}: blocks of {block} have more than {MAX_THREADS} threads")
        if len(arguments) != len(self.parameters):
            raise TypeError(f"{where} takes {len(self.parameters)} arguments, got {len(arguments)}")
        return tuple(map(self._checked, self.parameters, self.dtypes, arguments))

    def _checked(self, parameter: Parameter, expected: np.dtype[Any] | None, argument: Any) -> Any:
        # There are over a hundred launches in an evaluation: what fits is let through in few steps.
        if parameter.pointer:
            if getattr(argument, "dtype", None) != expected or not argument.flags.c_contiguous:
                self._refuse_array(parameter, argument)
            return argument
        if expected is None:
            if getattr(argument, "nbytes", None) != TENSOR_MAP_BYTES:
                raise TypeError(f"{self._name(parameter)} must be a tensor map, got {type(argument).__name__}")
            return argument
        if not isinstance(argument, int | float | np.integer | np.floating):
            raise TypeError(f"{self._name(parameter)} must be a number, got {type(argument).__name__}")
        if expected in _LIMITS:
            low, high = _LIMITS[expected]
            if argument != int(argument) or not low <= argument <= high:
                message = f"must be a whole number that fits {expected}, got {argument}"
                raise ValueError(f"{self._name(parameter)} {message}")
            return expected.type(int(argument))
        return expected.type(argument)

    def _refuse_array(self, parameter: Parameter, argument: Any) -> None:
        where, expected = self._name(parameter), self.dtypes[self.parameters.index(parameter)]
        if not hasattr(argument, "dtype") or not hasattr(argument, "flags"):
            raise TypeError(f"{where} must be an array on the device, got {type(argument).__name__}")
        if argument.dtype != expected:
            raise TypeError(f"{where} must be {expected}, got {argument.dtype}")
        raise ValueError(f"{where} must be C-contiguous")

    def _name(self, parameter: Parameter) -> str:
        return f"kernel {self.name!r}: {parameter.name}"


@cache
def declared(file: str) -> Mapping[str, tuple[Parameter, ...]]:
    """Return the parameters of each kernel that a source declares."""
    return declarations((FOLDER / file).read_text("utf-8"))


def declarations(text: str) -> dict[str, tuple[Parameter, ...]]:
    """Return the parameters of each kernel that a source text declares."""
    return {name: tuple(map(_parameter, inside.split(","))) for name, inside in _KERNEL.findall(text)}


def program(file: str, types: Sequence[tuple[str, np.dtype[Any]]]) -> str:
    """Return the whole text to compile: the macros, what is common and the source."""
    names = {dtype: name for name, dtype in C_TYPES.items()}
    macros = [f"#define {macro} {names[dtype]}" for macro, dtype in types]
    texts = [f'#line 1 "{name}"\n{(FOLDER / name).read_text("utf-8")}' for name in (*COMMON, file)]
    return "\n".join([*macros, *texts])


def sources() -> dict[str, tuple[str, ...]]:
    """Return the macros of each source with kernels."""
    found = {}
    for path in sorted(FOLDER.glob("*.cu")):
        if path.name not in COMMON:
            types = {parameter.type for kernel in declared(path.name).values() for parameter in kernel}
            found[path.name] = tuple(sorted(types - set(C_TYPES) - {TENSOR_MAP}))
    return found


def variants(file: str) -> list[tuple[tuple[str, np.dtype[Any]], ...]]:
    """Return every choice of element types that a source is compiled for."""
    macros = sources()[file]
    choices = itertools.product(*(MACRO_TYPES[macro] for macro in macros))
    return [tuple(zip(macros, types, strict=True)) for types in choices]


def _parameter(text: str) -> Parameter:
    words = text.replace("*", " * ").replace("__restrict__", " ").replace("__grid_constant__", " ").split()
    name = words.pop()
    kind = " ".join(word for word in words if word not in ("const", "*"))
    return Parameter(name, kind, "*" in words, "const" in words)
