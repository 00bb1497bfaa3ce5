"""Every operator means what onnxruntime says it means, in every array namespace, and survives writing and reading."""

import numpy as np
import pytest

from formalgr.core.arrays import RATIONAL, Arrays, to_numpy
from formalgr.graph.network import own_outputs, random_inputs
from formalgr.graph.onnx_reader import read
from formalgr.graph.onnx_writer import write
from formalgr.graph.runtime import Session
from formalgr.operators.registry import BILINEAR, HINTS, REGISTRY, RELAXED
from tests.operator_rows import ROWS

EVERY_ROW = pytest.mark.parametrize("row", ROWS, ids=repr)

FLOAT32 = 1e-5
"""Float32 sums of up to a hundred terms differ by 1e-6 of the largest output; a wrong attribute by far more."""


def _close(ours, theirs, relative):
    scale = np.max(np.abs(theirs), initial=0.0)
    np.testing.assert_allclose(ours, theirs, rtol=0.0, atol=relative * scale + 1e-30)


def test_every_operator_has_a_row():
    assert set(REGISTRY) <= {op_type for row in ROWS for op_type in row.op_types}


@EVERY_ROW
def test_the_registry_says_what_is_exact(row):
    """A network of exact operators is exact; one relaxed operator, or a product of two values, makes it relaxed."""
    if row.name == "Pow exponent 1":
        assert row.graph.exact, "the first power is the value itself"
    elif set(row.op_types) & RELAXED:
        assert not row.graph.exact
    elif not set(row.op_types) & BILINEAR:
        assert row.graph.exact
    elif len(row.op_types) == 1:
        assert row.graph.exact == (" of two " not in row.name and " and itself" not in row.name)


def test_hints_name_what_is_not_supported():
    assert not set(HINTS) & set(REGISTRY) and set(REGISTRY) >= RELAXED | BILINEAR


def test_row_names_are_unique():
    assert len({row.name for row in ROWS}) == len(ROWS)


@EVERY_ROW
def test_evaluation_is_that_of_onnxruntime(row):
    inputs = random_inputs(row.graph, 8) * np.array([1.0, 1.0, 0.1, 10.0, 1.0, 0.0, 3.0, 1e-3])[:, None]
    _close(own_outputs(row.graph, inputs), Session(row.data, row.name).run(inputs), FLOAT32)


@EVERY_ROW
def test_evaluation_in_rationals_is_that_in_floats(row):
    graph = row.graph
    inputs = random_inputs(graph, 2)
    if graph.rational:
        exact = graph.to(RATIONAL).evaluate(RATIONAL.asarray(inputs))
        _close(graph.evaluate(inputs), to_numpy(exact), 1e-12)


@EVERY_ROW
def test_evaluation_in_torch_is_that_in_numpy(row):
    graph = row.graph
    inputs = random_inputs(graph, 3)
    for arrays, relative in ((Arrays("torch", "float64"), 1e-12), (Arrays("torch", "float32"), 1e-5)):
        outputs = graph.to(arrays).evaluate(arrays.asarray(inputs))
        assert str(outputs.dtype).endswith(arrays.dtype)
        _close(to_numpy(outputs), graph.evaluate(inputs), relative)


@EVERY_ROW
def test_writing_and_reading_keeps_the_function(row, tmp_path):
    path = tmp_path / "written.onnx"
    written = write(row.graph, path)
    again = read(path).graph
    assert (again.input_shape, again.output_shape) == (row.graph.input_shape, row.graph.output_shape)
    inputs = random_inputs(row.graph, 4, seed=1)
    np.testing.assert_array_equal(again.evaluate(inputs), row.graph.evaluate(inputs))
    assert written.element == ("float64" if "alpha beta" in row.name and "Gemm" in row.name else "float32")
