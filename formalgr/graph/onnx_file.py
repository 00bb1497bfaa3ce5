"""ONNX files as checked protocol buffers: everything that can be wrong with a file before its operators are looked at.

In: a path (.onnx or gzip). Out: ModelFile, numpy arrays of its tensors. Trust: sound (what is not understood raises).
"""

import gzip
import hashlib
import io
import os
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from formalgr.core.errors import InputError, ModelError

OLDEST_OPSET, NEWEST_OPSET = 8, 22
"""Opsets whose operators the builders know; the attribute forms before 8 are not read."""

GZIP_MAGIC = b"\x1f\x8b"
LFS_MAGIC = b"version https://git-lfs"
LARGEST_FILE = 2**31 - 1
"""A protocol buffer holds no more; also keeps a gzip bomb out of memory."""


@dataclass(frozen=True)
class ModelFile:
    """A parsed file: `model` is the onnx.ModelProto with external data loaded, `data` its bytes as onnxruntime takes
    them; `sources` are (path, SHA-256 of the uncompressed bytes) of the file and of its external data."""

    path: str
    model: object
    data: bytes
    opset: int
    sources: tuple[tuple[str, str], ...]


def read_bytes(path: str | Path) -> bytes:
    """The uncompressed bytes of a file, plain or gzip. Raises InputError saying what is wrong with the file."""
    place = Path(path)
    if os.path.isdir(place):
        raise InputError(f"{place} is a directory; give the .onnx file in it")
    try:
        if place.stat().st_size > LARGEST_FILE:
            raise InputError(f"{place} is larger than {LARGEST_FILE} bytes, more than an ONNX file can be")
        data = place.read_bytes()
    except FileNotFoundError:
        raise InputError(f"{place}: no such file; check the path") from None
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        raise InputError(f"{place} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if data.startswith(GZIP_MAGIC):
        return _decompressed(place, data)
    if place.suffix == ".gz" and not data.startswith(LFS_MAGIC):
        raise InputError(f"{place} is named .gz but holds no gzip data ({len(data)} bytes); download it again")
    return data


def _decompressed(place: Path, data: bytes) -> bytes:
    try:
        with gzip.GzipFile(fileobj=io.BytesIO(data)) as stream:
            result = stream.read(LARGEST_FILE + 1)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{place} is a damaged gzip file ({error}); download it again") from None
    if len(result) > LARGEST_FILE:
        raise InputError(f"{place} holds more than {LARGEST_FILE} uncompressed bytes, more than an ONNX file can")
    return result


def load(path: str | Path) -> ModelFile:
    """The parsed file. Raises InputError or ModelError: one line with the file, what is wrong and the way out."""
    import onnx

    data = read_bytes(path)
    digest = hashlib.sha256(data).hexdigest()
    model = _parsed(path, data)
    opset = _opset(path, model)
    sources = [(str(path), digest)]
    external = _load_external(path, model)
    if external:
        sources += external
        try:
            data = model.SerializeToString()
        except (ValueError, onnx.checker.ValidationError):
            raise ModelError(f"{path} with its external data exceeds 2 GiB, more than formalgr reads") from None
    return ModelFile(str(path), model, data, opset, tuple(sources))


def _parsed(path: str | Path, data: bytes):
    import onnx
    from google.protobuf.message import DecodeError

    size = f"{len(data)} bytes"
    if data.startswith(LFS_MAGIC):
        raise ModelError(f"{path} is a Git LFS pointer ({size}), not the network; run git lfs pull where it came from")
    if not data:
        raise ModelError(f"{path} is not an ONNX file: it is empty")
    try:
        model = onnx.load_model_from_string(data)
    except DecodeError:
        # every exporter writes ir_version first: field 1, a small varint
        if data[0] == 0x08 and len(data) > 2 and data[1] < 0x20:
            raise ModelError(f"{path} is a truncated or damaged ONNX file ({size}); copy or export it again") from None
        raise ModelError(f"{path} is not an ONNX file ({size}); export the network to ONNX") from None
    if not model.HasField("graph") or not model.graph.output:
        raise ModelError(f"{path} is not an ONNX file with a network in it ({size}); export the network again")
    if not all(isinstance(name, str) for name in _names(model.graph)):
        raise ModelError(f"{path} is a damaged ONNX file ({size}): a name in it is no text; copy or export it again")
    if any(function.domain in ("", "ai.onnx") for function in model.functions):
        raise ModelError(f"{path} redefines a standard operator by a function of its own; export it without functions")
    return model


def _names(graph):
    """Every name in the graph; protobuf gives bytes where a file holds no valid UTF-8."""
    for value in (*graph.input, *graph.output, *graph.initializer):
        yield value.name
    for node in graph.node:
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
        yield from (attribute.name for attribute in node.attribute)


def _opset(path: str | Path, model) -> int:
    versions = sorted({entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")})
    if len(versions) != 1:
        said = "no opset" if not versions else f"several opsets {versions}"
        raise ModelError(f"{path} names {said} of the standard operators; export it with one opset, best 17")
    if not OLDEST_OPSET <= versions[0] <= NEWEST_OPSET:
        raise ModelError(
            f"{path} has opset {versions[0]}; formalgr reads {OLDEST_OPSET} to {NEWEST_OPSET}: export it with opset 17"
        )
    return versions[0]


def _tensors(graph):
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            yield from attribute.tensors


def _load_external(path: str | Path, model) -> list[tuple[str, str]]:
    """Load the external data into the model: (path, SHA-256) of every file that was read."""
    from onnx import TensorProto
    from onnx.checker import ValidationError
    from onnx.external_data_helper import load_external_data_for_tensor

    folder, found = Path(path).parent, {}
    for tensor in _tensors(model.graph):
        if tensor.data_location != TensorProto.EXTERNAL:
            continue
        location = next((entry.value for entry in tensor.external_data if entry.key == "location"), "")
        place = _within(folder, location)
        if place is None:
            raise ModelError(
                f"{path}: the external data file {location[:80] or '(unnamed)'} of {tensor.name} is missing or lies "
                f"outside the folder; put it into {folder} or save the network as one file"
            )
        try:
            load_external_data_for_tensor(tensor, str(folder))
            tensor.data_location = TensorProto.DEFAULT
            del tensor.external_data[:]
            if location not in found:
                found[location] = (str(place), hashlib.sha256(place.read_bytes()).hexdigest())
        except (OSError, ValueError, OverflowError, MemoryError, ValidationError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ModelError(f"{path}: the external data of {tensor.name} cannot be read: {reason}") from None
    return list(found.values())


def _within(folder: Path, location: str) -> Path | None:
    """The file of that name in the folder or below it, links followed; None where there is none."""
    try:
        place = (folder / location).resolve()
        inside = place.is_relative_to(folder.resolve()) and place.is_file()
    except (OSError, ValueError, RuntimeError):  # a name that no file can have, a loop of links
        return None
    return place if location and inside else None


def element_name(code: int) -> str:
    """The ONNX name of an element type, in small letters."""
    from onnx import TensorProto

    known = code in TensorProto.DataType.values()
    return TensorProto.DataType.Name(code).lower() if known else f"of unknown element type {code}"


def array(tensor, where: str) -> np.ndarray:
    """The values of a tensor as numpy. Raises ModelError for half precision, strings and damaged data."""
    from onnx import numpy_helper

    kind = element_name(tensor.data_type)
    known = ("float", "double", "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64")
    if kind not in known:
        raise ModelError(f"{where} is {kind}; formalgr reads float32 and float64: convert the network")
    try:
        return np.asarray(numpy_helper.to_array(tensor))
    except (ValueError, TypeError) as error:
        raise ModelError(f"{where} is damaged: {str(error).splitlines()[0]}; export the network again") from None


def finite(values: np.ndarray, where: str) -> np.ndarray:
    """The same array. Raises ModelError naming the first NaN or infinite entry."""
    bad = ~np.isfinite(values)
    if np.any(bad):
        index = [int(k) for k in np.argwhere(bad)[0]]
        raise ModelError(f"{where} holds {values[tuple(index)]} at index {index}; train or export the network again")
    return values


def as_float32(data: bytes) -> bytes:
    """The same model with every float64 tensor, value and cast made float32, each number rounded to nearest."""
    import onnx
    from onnx import TensorProto, numpy_helper

    model = onnx.load_model_from_string(data)
    for tensor in _tensors(model.graph):
        if tensor.data_type == TensorProto.DOUBLE:
            values = numpy_helper.to_array(tensor)
            with np.errstate(over="ignore", under="ignore"):
                tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float32), tensor.name))
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        if value.type.tensor_type.elem_type == TensorProto.DOUBLE:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    for node in model.graph.node:
        for attribute in node.attribute:
            if (node.op_type, attribute.name, attribute.i) == ("Cast", "to", TensorProto.DOUBLE):
                attribute.i = TensorProto.FLOAT
    return model.SerializeToString()
