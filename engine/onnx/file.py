"""An ONNX file taken apart: its nodes, their attributes, its tensors and where their data lie.

Everything that reads a model goes through here, so that a name, an attribute or a weight means the same to all. Texts
are made harmless on the way in: a name with control characters or broken UTF-8 comes out with these as escapes.
"""

from __future__ import annotations

import contextlib
import math
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError, EncodeError
from onnx import inliner, numpy_helper
from onnx.external_data_helper import ExternalDataInfo

from engine.errors import ModelError, printable
from engine.ops import Array

MAX_NODES = 200_000
"""What a model may have when its functions are written out; the largest published ones have some thousands."""

MAX_DEPTH = 100
"""How deep functions may call each other."""


@dataclass(frozen=True, eq=False)
class OnnxFile:
    """A model and the folders that data of its tensors may lie in.

    Parameters
    ----------
    model : with functions written out and texts made harmless; its nodes and tensors are read by the methods here.
    folders : where the file lies and, where it is a link, where that leads; none for a model that is in no file.
    label : how messages call it.
    """

    model: onnx.ModelProto
    folders: tuple[Path, ...]
    label: str

    @property
    def graph(self) -> onnx.GraphProto:
        """The network."""
        return self.model.graph

    @property
    def opset(self) -> int:
        """The version of the operator set that the model was written for, 0 where it does not say."""
        versions = (entry.version for entry in self.model.opset_import if entry.domain in ("", "ai.onnx"))
        return next(versions, 0)

    def array(self, tensor: onnx.TensorProto, what: str) -> Array:
        """Return a tensor's values, from the file of their own where they lie there.

        Raises ModelError, beginning with ``what``, for data that are damaged, missing or outside the folders.
        """
        if any(size < 0 for size in tensor.dims):
            raise ModelError(f"{what} has the shape {tuple(tensor.dims)}")
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            return self._external(tensor, what)
        try:
            return numpy_helper.to_array(tensor)
        except Exception as error:  # to_array raises many kinds on a damaged tensor
            raise ModelError(f"{what} cannot be read: {printable(str(error))}") from None

    def _external(self, tensor: onnx.TensorProto, what: str) -> Array:
        try:
            info = ExternalDataInfo(tensor)
            name, offset, given = printable(info.location), int(info.offset or 0), info.length
            dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
        except Exception as error:  # numbers that are none, types that do not exist
            raise ModelError(f"{what}: its place in a data file cannot be read: {printable(str(error))}") from None
        expected = math.prod(tensor.dims) * dtype.itemsize
        length = expected if given is None else int(given)
        location = self._data_file(info.location, what)
        try:
            if length != expected or offset < 0:
                found = length
            else:
                # What is asked for may be more than there is memory for: only as much as the file has is read.
                found = max(min(location.stat().st_size - offset, expected), 0)
            if found == expected:
                with location.open("rb") as file:
                    file.seek(offset)
                    data = file.read(expected)
                values = np.frombuffer(data, dtype).reshape(tensor.dims)
                return values if sys.byteorder == "little" else values.byteswap()
        except (OSError, OverflowError) as error:
            raise ModelError(f"{what}: its data file {name!r} cannot be read: {error}") from None
        raise ModelError(f"{what}: {found} bytes in {name!r}, expected {expected} for shape {tuple(tensor.dims)}")

    def _data_file(self, location: str, what: str) -> Path:
        """Return the file that a tensor's data lie in.

        It lies beside the model or in a folder beside it, through any links there as long as they lead to nothing
        outside. A download manager's cache has links in one folder to files of other names in another: there the data
        lie beside the link, and the link leads into the folder that the model's own link leads to.
        """
        name = printable(location)
        outside = False
        for folder in self.folders:
            try:
                found = (folder / location).resolve()
                inside = not Path(location).is_absolute() and ".." not in Path(location).parts
                inside = inside and any(found.is_relative_to(root) for root in self.folders)
                if inside and found.is_file():
                    return found
            except (OSError, ValueError, RuntimeError):  # a name that no file can have, links in a circle
                continue
            outside |= not inside
        if outside:
            raise ModelError(f"{what}: its data file {name!r} lies outside the model's folder")
        raise ModelError(f"{what}: its data file {name!r} does not exist beside the model")


def open_onnx(source: str | Path | onnx.ModelProto) -> OnnxFile:
    """Return an ONNX model, from its file or as it is.

    Raises ModelError when it is missing, damaged or not ONNX, or its functions cannot be written out.
    """
    folders: tuple[Path, ...]
    if isinstance(source, onnx.ModelProto):
        model, folders, label = source, (), "the model"
    else:
        path = Path(source)
        model, label = _parsed(path), str(path)
        # Both stand for what lies beside the file; for a link they are two.
        folders = tuple(dict.fromkeys((path.absolute().parent.resolve(), path.resolve().parent)))
    with _decodable(label):
        model = _with_harmless_texts(model)
        if model.functions:
            model = _inlined(model, label)
    return OnnxFile(model, folders, label)


def _parsed(path: Path) -> onnx.ModelProto:
    """Return the content of an ONNX file, without data that lies in files of its own."""
    if path.exists() and not path.is_file():
        raise ModelError(f"{path}: is {'a directory' if path.is_dir() else 'no regular file'}, expected an ONNX file")
    try:
        model = onnx.load(str(path), format="protobuf", load_external_data=False)
    except FileNotFoundError:
        raise ModelError(f"{path}: no such model file") from None
    except OSError as error:
        raise ModelError(f"{path}: cannot be read: {error.strerror or error}") from None
    except (DecodeError, UnicodeDecodeError, RecursionError):
        raise ModelError(f"{path}: not an ONNX file, or a truncated one") from None
    if not model.ir_version or not model.graph.node:
        raise ModelError(f"{path}: not an ONNX file: it holds no network")
    return model


@contextlib.contextmanager
def _decodable(label: str) -> Iterator[None]:
    """Turn what protobuf raises for texts that are none into an error of the model."""
    try:
        yield
    except (UnicodeError, DecodeError, EncodeError) as error:
        raise ModelError(f"{label}: damaged: {printable(str(error))}") from None


# ---- texts ----


def _with_harmless_texts(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a model whose names and properties can be printed: itself, or a copy where one cannot."""
    if all(_is_harmless(text) for message, field in _texts(model) for text in _values(message, field)):
        return model
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for message, field in _texts(copy):
        value = getattr(message, field)
        if isinstance(value, str | bytes):
            setattr(message, field, printable(value))
        else:
            value[:] = [printable(text) for text in value]
    return copy


def _is_harmless(text: str | bytes) -> bool:
    return isinstance(text, str) and text.isprintable()


def _values(message: Any, field: str) -> Sequence[str | bytes]:
    value = getattr(message, field)
    return [value] if isinstance(value, str | bytes) else value


def _texts(model: onnx.ModelProto) -> Iterator[tuple[Any, str]]:
    """Yield each message that has texts which name something, with the field they are in."""
    for entry in model.opset_import:
        yield entry, "domain"
    for entry in model.metadata_props:
        yield entry, "key"
        yield entry, "value"
    for tensor in model.graph.initializer:
        yield tensor, "name"
    for value in (*model.graph.input, *model.graph.output):
        yield value, "name"
    for function in model.functions:
        for field in ("name", "domain", "input", "output", "attribute"):
            yield function, field
    for node in (*model.graph.node, *(node for function in model.functions for node in function.node)):
        for field in ("name", "op_type", "domain", "input", "output"):
            yield node, field
        for attribute in node.attribute:
            yield attribute, "name"


# ---- functions ----


def _inlined(model: onnx.ModelProto, label: str) -> onnx.ModelProto:
    """Return a model with its functions written out; raises ModelError where that would not end, or end too large."""
    count = _written_out(model)
    if count > MAX_NODES:
        raise ModelError(f"{label}: its functions stand for more than {MAX_NODES:,} nodes, or for themselves")
    try:
        # Those that were written for another version of the operators are left as they are.
        return inliner.inline_local_functions(model)
    except Exception as error:  # the inliner is in C++ and raises what it likes
        raise ModelError(f"{label}: its functions cannot be written out: {printable(str(error))}") from None


def _written_out(model: onnx.ModelProto) -> int:
    """Return how many nodes a model has when its functions are written out; more than allowed where there is no end."""
    functions = {
        (function.domain, function.name, function.overload): Counter(_called(function.node))
        for function in model.functions
    }
    counts: dict[tuple[str, str, str], int] = {}
    # Every pass sees one call deeper; nothing changes any more when all have been seen.
    for _ in range(MAX_DEPTH):
        deeper = {
            key: min(sum(times * counts.get(called, 1) for called, times in body.items()), MAX_NODES + 1)
            for key, body in functions.items()
        }
        if deeper == counts:
            return sum(counts.get(called, 1) for called in _called(model.graph.node))
        counts = deeper
    return MAX_NODES + 1


def _called(nodes: Iterable[onnx.NodeProto]) -> Iterator[tuple[str, str, str]]:
    """Yield what each node calls: domain, name and overload; those inside the branches and loops of others too."""
    for node in nodes:
        yield node.domain, node.op_type, node.overload
        for attribute in node.attribute:
            for graph in (attribute.g, *attribute.graphs):
                yield from _called(graph.node)


# ---- nodes ----


def name_of(node: onnx.NodeProto) -> str:
    """Return an ONNX node's name, that of its first output where it has none."""
    return str(node.name or next(iter(node.output), ""))


_ADOPTED = ("com.microsoft.DequantizeLinear", "com.microsoft.QuantizeLinear")
"""Operators of another domain that are ONNX's own."""


def operator_of(node: onnx.NodeProto) -> str:
    """Return the name of a node's operator, with its domain where that is not ONNX's own."""
    name = f"{node.domain}.{node.op_type}"
    return str(node.op_type if node.domain in ("", "ai.onnx") or name in _ADOPTED else name)


def attributes_of(node: onnx.NodeProto, read: Callable[[onnx.TensorProto, str], Array]) -> Mapping[str, Any]:
    """Return an ONNX node's attributes by name; texts as ``str``, tensors as arrays.

    Parameters
    ----------
    read : gives a tensor's values, see ``OnnxFile.array``.

    Raises ModelError for an attribute that cannot be read.
    """
    values = {}
    for entry in node.attribute:
        try:
            value = onnx.helper.get_attribute_value(entry)
        except ValueError as error:
            raise ModelError(
                f"{operator_of(node)} {name_of(node)!r}: the attribute {entry.name!r} cannot be read: "
                f"{printable(str(error))}"
            ) from None
        if isinstance(value, bytes):
            value = value.decode(errors="replace")
        elif isinstance(value, onnx.TensorProto):
            value = read(value, f"{operator_of(node)} {name_of(node)!r}: the attribute {entry.name!r}")
        values[entry.name] = value
    return values
