"""Windows are a way to store sparse arrays, nothing else: every meaning that they have agrees with whole nodes."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest

from formalgr.core.box import Box
from formalgr.core.local import Local
from formalgr.graph.graph import GraphBuilder
from formalgr.operators.combine import Add, MultiplyConstant
from formalgr.operators.convolution import Convolution
from formalgr.operators.dense import Dense
from formalgr.operators.linear_map import LinearMap
from formalgr.operators.normalize import BatchNorm
from formalgr.operators.pooling import MaxPool
from formalgr.operators.reshape import Expand, Reshape
from formalgr.operators.window import Window
from formalgr.search import columns
from formalgr.search.fold import ANY_SIZE, FoldLimits, fold
from tests.laws.test_bounds import _exact_values, _row_values, _rows, _samples, _system_rows
from tests.operator_rows import ROWS
from tests.zoo import activation

CASES = [
    pytest.param(operator, shapes[0], id=f"{row.name}: {position} {type(operator).__name__}")
    for row in ROWS
    for position, (operator, shapes) in enumerate(row.operators())
    if isinstance(operator, LinearMap) and len(shapes) == 1 and operator.arity == 1
]

WINDOWED = (Convolution, BatchNorm, MultiplyConstant, Expand)
"""Operators that keep any window of their input a window."""


def _locals(shape, random) -> list[Local]:
    """Points, windows of a random extent, whole nodes; in the node's own layout."""
    extents = [(1,) * len(shape), tuple(int(random.integers(1, n + 1)) for n in shape), tuple(shape)]
    found = []
    for extent in extents:
        room = [n - e + 1 for n, e in zip(shape, extent, strict=True)]
        origin = np.stack([random.integers(0, n, 9) for n in room], axis=1) if shape else np.zeros((9, 0), np.int64)
        values = random.standard_normal((9, *extent))
        values[random.random(values.shape) < 0.3] = 0.0
        found.append(Local(values, origin, tuple(shape)))
    return found


def _inside(local: Local) -> bool:
    ends = local.origin + np.array(local.window, dtype=np.int64)
    return bool(np.all(local.origin >= 0) and np.all(ends <= np.array(local.shape, dtype=np.int64)))


@pytest.mark.parametrize(("operator", "shape"), CASES)
def test_a_linear_map_of_windows_is_the_linear_map(operator, shape):
    random = np.random.default_rng(0)
    for local in _locals(shape, random):
        flat = (int(np.prod(shape, dtype=np.int64)),)
        for layout in (local, local.reshaped(flat)):
            made = None if layout is None else operator.apply_local(layout, shape)
            batch_free = not shape or shape[0] == 1
            assert made is not None or layout is None or not (isinstance(operator, WINDOWED) and batch_free)
            if made is not None:
                truth = operator.apply(layout.dense().reshape(-1, *shape))
                assert _inside(made)
                np.testing.assert_allclose(made.dense().reshape(truth.shape), truth, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("source", [(2, 3, 4), (1, 6, 1, 4), (24,), (2, 3, 2, 1, 2)])
@pytest.mark.parametrize("target", [(2, 3, 4), (1, 6, 1, 4), (24,), (2, 12), (6, 4, 1), (4, 6)])
def test_another_layout_keeps_the_arrays(source, target):
    for local in _locals(source, np.random.default_rng(1)):
        moved = local.reshaped(target)
        assert moved is not None or local.volume > 1
        if moved is not None:
            assert moved.shape == target and _inside(moved)
            assert np.array_equal(moved.dense().reshape(local.dense().shape), local.dense())


def test_whole_axes_may_be_merged_and_split():
    window = Local(np.ones((2, 3, 2, 5)), np.array([[0, 1, 0], [0, 0, 0]]), (3, 4, 5))
    assert window.reshaped((3, 20)).window == (3, 10)
    assert window.reshaped((60,)) is None
    assert window.reshaped((1, 3, 4, 1, 5)).window == (1, 3, 2, 1, 5)


POOLS = (
    Window((2, 2), (2, 2), (1, 1), ((0, 0), (0, 0))),
    Window((3, 3), (2, 2), (1, 1), ((1, 1), (1, 1))),
    Window((2, 3), (1, 2), (1, 1), ((0, 1), (1, 0))),
)


@pytest.mark.parametrize(
    "window",
    [*POOLS, Window((4, 3), (1, 2), (1, 2), ((0, 1), (0, 0))), Window((5, 5), (1, 1), (1, 1), ((0, 0), (0, 0)))],
    ids=str,
)
def test_patches_are_what_the_windows_say(window):
    """Few places in many windows, many places in few, one window over everything; there, and added back."""
    values = np.random.default_rng(0).standard_normal((2, 3, 5, 5))
    padded = np.pad(values, ((0, 0), (0, 0), *window.pads), constant_values=-7.0)
    patches, back = window.patches(values, -7.0), np.zeros_like(padded)
    assert patches.shape == (2, 3, window.size, *window.out((5, 5)))
    for place, output in product(np.ndindex(*window.kernel), np.ndindex(*window.out((5, 5)))):
        at = [o * s + k * d for o, s, k, d in zip(output, window.strides, place, window.dilations, strict=True)]
        one = patches[(..., np.ravel_multi_index(place, window.kernel), *output)]
        assert np.array_equal(one, padded[(..., *at)])
        back[(..., *at)] += one
    (top, _), (left, _) = window.pads
    np.testing.assert_allclose(window.scatter(patches, (5, 5)), back[..., top : top + 5, left : left + 5], rtol=1e-12)


def _pooled(seed: int, window: Window):
    """4 inputs, convolution, ReLU, MaxPool with the window, convolution, ReLU, a dense end."""
    random = np.random.default_rng(seed)
    builder = GraphBuilder((1, 4))
    last = builder.add("d", Dense(random.standard_normal((4, 25)), random.standard_normal(25)), 0)
    last = builder.add("image", Reshape((1, 1, 5, 5)), last)
    same, small = Window((3, 3), (1, 1), (1, 1), ((1, 1), (1, 1))), Window((2, 2), (1, 1), (1, 1), ((0, 0), (0, 0)))
    last = builder.add("c", Convolution(random.standard_normal((1, 2, 9)), None, same, (5, 5)), last)
    last = builder.chain("r", activation("Relu", builder.shape(last)), last)
    last = builder.add("pool", MaxPool(window, (5, 5)), last)
    spatial = builder.shape(last)[2:]
    last = builder.add("c2", Convolution(random.standard_normal((1, 2, 8)), None, small, spatial), last)
    last = builder.chain("r2", activation("Relu", builder.shape(last)), last)
    size = int(np.prod(builder.shape(last)))
    builder.add("e", Dense(random.standard_normal((size, 3))), builder.add("flat", Reshape((1, size)), last))
    return builder.build()


def _graph(seed: int):
    """4 inputs, convolutions with strides, pads and groups, a skip connection, a transposed one, a dense end."""
    random = np.random.default_rng(seed)

    def weights(*shape):
        return (random.standard_normal(shape) / np.sqrt(shape[-1])).astype(np.float32).astype(np.float64)

    def relu(name, node, **leak):
        kind = "LeakyRelu" if leak else "Relu"
        return builder.chain(name, activation(kind, builder.shape(node), **leak), node)

    builder = GraphBuilder((1, 4))
    first = builder.add("d0", Dense(weights(4, 50), weights(50)), 0)
    wide = relu("r0", builder.add("image", Reshape((1, 2, 5, 5)), first), alpha=0.25)
    same = Window((3, 3), (1, 1), (1, 1), ((1, 1), (1, 1)))
    second = relu("r1", builder.add("c1", Convolution(weights(2, 1, 9), weights(2, 1, 1), same, (5, 5)), wide))
    joined = builder.add("skip", Add(), second, wide)
    strided = Window((3, 2), (2, 2), (1, 1), ((0, 1), (1, 0)))
    third = relu("r2", builder.add("c2", Convolution(weights(1, 3, 12), None, strided, (5, 5)), joined))
    back = Convolution(weights(1, 3, 12), None, strided, (5, 5), transposed=True)
    fourth = relu("r3", builder.add("c3", back, third))
    builder.add("d4", Dense(weights(50, 3)), builder.add("flat", Reshape((1, 50)), fourth))
    return builder.build()


@pytest.mark.parametrize("seed", range(4))
def test_folding_with_windows_is_folding(seed, monkeypatch):
    graph = _graph(seed)
    center = np.random.default_rng(seed).standard_normal((3, 4))
    radius = np.array([[0.02], [0.3], [1e-6]])
    box, rows = Box(center - radius, center + radius), _rows(graph)
    folded = []
    for least, share in ((10**9, 0.5), (1, 1.0), (1, 0.2)):
        monkeypatch.setattr(columns, "LOCAL_ELEMENTS", least)
        monkeypatch.setattr(columns, "SPREAD", share)
        folded.append(fold(graph, box, rows))
    assert folded[0].system.units > 10
    for other in folded[1:]:
        blocks = zip((*folded[0].system.blocks, folded[0].system.outputs),
                     (*other.system.blocks, other.system.outputs), strict=True)
        for mine, theirs in blocks:
            for name in ("weights", "constant", "radius"):
                np.testing.assert_allclose(getattr(theirs, name), getattr(mine, name), rtol=1e-9, atol=1e-12)
        for mine, theirs in zip(folded[0].bounds, other.bounds, strict=True):
            np.testing.assert_allclose(theirs, mine, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(("seed", "radius"), [(0, 0.2), (1, 1e-3), (2, 1e-15)])
def test_windows_keep_the_function(seed, radius, monkeypatch):
    """In exact rationals: the systems contain the rows at every sampled point, also where the box is but rounding."""
    monkeypatch.setattr(columns, "LOCAL_ELEMENTS", 1)
    graph = _graph(seed)
    center = np.random.default_rng(seed).standard_normal((2, 4))
    box, rows = Box(center - radius, center + radius), _rows(graph)
    folded = fold(graph, box, rows)
    for which, point in _samples(box, seed):
        exact = _row_values(rows, _exact_values(graph, point)[-1])
        for value, (low, high) in zip(exact, _system_rows(folded.system, which, point), strict=True):
            assert low <= value <= high
            assert high - low < 1e-9 * (1 + abs(value))


@pytest.mark.parametrize("least", [1, 10**9])
@pytest.mark.parametrize("window", POOLS, ids=str)
@pytest.mark.parametrize("limit", [None, 6])
def test_maxima_fold(window, least, limit, monkeypatch):
    """In exact rationals; exactly, unless there is no room for the units."""
    monkeypatch.setattr(columns, "LOCAL_ELEMENTS", least)
    limits = ANY_SIZE if limit is None else FoldLimits(units=limit)
    for seed, radius in enumerate((0.3, 0.02, 1e-6)):
        graph = _pooled(seed, window)
        center = np.random.default_rng(seed).standard_normal((2, 4))
        box, rows = Box(center - radius, center + radius), _rows(graph)
        folded = fold(graph, box, rows, limits=limits)
        assert folded.loose == (limit is not None and fold(graph, box, rows).system.units > limit)
        for which, point in _samples(box, seed):
            exact = _row_values(rows, _exact_values(graph, point)[-1])
            for value, (low, high) in zip(exact, _system_rows(folded.system, which, point), strict=True):
                assert low <= value <= high
                assert high - low < 1e-9 * (1 + abs(value)) or folded.loose


def test_maxima_of_equal_values_make_no_units():
    """All entries of a window are 0 behind an inactive ReLU, up to rounding: nothing is open about their maximum."""
    random, builder = np.random.default_rng(0), GraphBuilder((1, 4))
    last = builder.add("d", Dense(0.1 * random.standard_normal((4, 36)), np.full(36, -5.0)), 0)
    last = builder.chain("r", activation("LeakyRelu", (1, 36), alpha=0.0), last)
    last = builder.add("same", Dense(np.ones((36, 36)), 0.1 * np.ones(36)), last)
    last = builder.add("pool", MaxPool(POOLS[0], (6, 6)), builder.add("image", Reshape((1, 1, 6, 6)), last))
    builder.add("e", Dense(random.standard_normal((9, 3))), builder.add("flat", Reshape((1, 9)), last))
    graph = builder.build()
    folded = fold(graph, Box(np.full((1, 4), -1.0), np.full((1, 4), 1.0)), _rows(graph))
    assert folded.system.units == 0


def test_inputs_that_do_not_vary_are_constants():
    graph = _graph(0)
    center = np.random.default_rng(5).standard_normal((2, 4))
    radius = np.array([0.1, 0.0, 1e-14, 0.1])
    folded = fold(graph, Box(center - radius, center + radius), _rows(graph))
    assert folded.system.units > 2
    assert np.any(folded.system.outputs.weights[:, :, 0])
    for block in (*folded.system.blocks, folded.system.outputs):
        assert not np.any(block.weights[:, :, 1:3])


def test_windows_of_a_convolution_stay_small():
    window = Window((3, 3), (1, 1), (1, 1), ((0, 0), (0, 0)))
    convolution = Convolution(np.ones((1, 4, 18)), None, window, (30, 30))
    point = Local(np.ones((1, 1)), np.array([[400]]), (1800,))
    made = convolution.apply_local(replace(point), (1, 2, 30, 30))
    assert made.window == (1, 4, 3, 3) and made.shape == (1, 4, 28, 28)
