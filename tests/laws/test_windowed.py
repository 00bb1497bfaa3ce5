"""Bounds of deviations in windows: below exact samples, near dense forward bounds; unknown networks are refused."""

from fractions import Fraction

import numpy as np
import pytest

from formalgr.bounds.forward import ForwardBounder
from formalgr.bounds.windowed import lower_bounds, windowed
from formalgr.core.arrays import RATIONAL
from formalgr.core.box import Box
from formalgr.core.exact import fraction
from formalgr.core.l0_ball import L0Ball
from formalgr.core.seeds import named_generator
from formalgr.graph.graph import Graph, GraphBuilder
from formalgr.operators.convolution import Convolution
from formalgr.operators.dense import Dense
from formalgr.operators.pooling import MaxPool
from formalgr.operators.reshape import Reshape
from formalgr.operators.window import Window
from formalgr.verify.l0 import pixel_coordinates
from tests.zoo import activation

LAYERS = {
    "plain": [("conv", 1, 0, "Relu"), ("conv", 1, 0, "LeakyRelu"), ("pool", 2, 2, 0)],
    "padded": [("conv", 1, 1, "Relu"), ("pool", 3, 2, 1), ("conv", 2, 1, "Abs")],
    "strided": [("conv", 2, 0, "Relu"), ("conv", 1, 1, "HardSigmoid"), ("pool", 2, 1, 0)],
}


def convolutional(name: str, channels: int, scale: float = 1.0) -> Graph:
    """The layers of that name on pictures of 9 x 9, then fully connected ones with a ReLU between them."""
    random = named_generator(channels, f"windowed {name}")
    builder = GraphBuilder((1, channels, 9, 9))
    for index, (kind, *sizes) in enumerate(LAYERS[name]):
        _, narrow, *spatial = builder.shape(builder.last)
        if kind == "pool":
            kernel, stride, pad = sizes
            window = Window((kernel,) * 2, (stride,) * 2, (1, 1), ((pad, pad),) * 2)
            builder.add(f"pool{index}", MaxPool(window, tuple(spatial)), builder.last)
            continue
        stride, pad, bend = sizes
        window = Window((3, 3), (stride,) * 2, (1, 1), ((pad, pad),) * 2)
        weights, bias = scale * random.normal(size=(1, 4, 9 * narrow)) / 3, random.normal(size=(4, 1, 1)) / 4
        builder.add(f"conv{index}", Convolution(weights, bias, window, tuple(spatial)), builder.last)
        builder.chain(f"bend{index}", activation(bend, builder.shape(builder.last)), builder.last)
    size = int(np.prod(builder.shape(builder.last)))
    builder.add("flat", Reshape((1, size)), builder.last)
    builder.add("dense", Dense(random.normal(size=(size, 8)) / size**0.5, random.normal(size=8)), builder.last)
    builder.chain("bend", activation("Relu", (1, 8)), builder.last)
    builder.add("rows", Dense(random.normal(size=(8, 3)), random.normal(size=3)), builder.last)
    return builder.build()


def question(graph: Graph, channels: int):
    """A point, and balls of one pixel each: whole ranges, halves that do not hold the point, and the corners."""
    random = named_generator(7, "windowed points")
    coordinates = pixel_coordinates(graph.input_shape, "first")
    point = random.choice([0.0, 0.0, 0.5, 1.0], size=graph.inputs)
    pixels = np.array([0, 8, 80, 40, 40, 31, 44])
    lower, upper = np.zeros((len(pixels), graph.inputs)), np.ones((len(pixels), graph.inputs))
    lower[4], upper[5] = 0.5, 0.25
    parts = np.full((len(pixels), len(coordinates)), -1, dtype=np.int8)
    parts[np.arange(len(pixels)), pixels] = 0
    free = np.zeros(lower.shape, dtype=bool)
    free[np.arange(len(pixels))[:, None], coordinates[pixels]] = True
    lower, upper = np.where(free, lower, point), np.where(free, upper, point)
    ball = L0Ball(Box(lower, upper), np.clip(point[None], lower, upper), parts, (1,), coordinates)
    return point, ball


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", LAYERS)
def test_bounds_lie_below_exact_samples(name, channels):
    for scale in (1.0, 1e5):
        graph = convolutional(name, channels, scale)
        assert windowed(graph)
        point, ball = question(graph, channels)
        around = graph.intervals(Box(point[None], point[None]).interval(graph.input_shape))
        least = lower_bounds(graph, point, around, ball)
        random, rational = named_generator(8, "windowed samples"), graph.to(RATIONAL)
        for which in range(len(ball)):
            low, high = ball.box.lower[which], ball.box.upper[which]
            points = [low, high, *(low + (high - low) * random.uniform(size=(2, 1)))]
            exact = rational.evaluate(RATIONAL.asarray(np.array(points)))
            for outputs in exact:
                assert all(Fraction(float(a)) <= fraction(y) for a, y in zip(least[which], outputs, strict=True))


@pytest.mark.parametrize("name", LAYERS)
def test_a_pixel_that_does_not_move_is_bounded_to_rounding(name):
    graph = convolutional(name, 1)
    point, ball = question(graph, 1)
    still = L0Ball(Box(ball.base, ball.base), ball.base, ball.parts, (1,), ball.coordinates)
    around = graph.intervals(Box(point[None], point[None]).interval(graph.input_shape))
    least, values = lower_bounds(graph, point, around, still), graph.evaluate(ball.base)
    assert np.all(values - least < 1e-10) and np.all(least <= values + 1e-12)


def test_windows_are_as_tight_as_whole_nodes_on_average():
    graph = convolutional("plain", 1)
    point, ball = question(graph, 1)
    around = graph.intervals(Box(point[None], point[None]).interval(graph.input_shape))
    mine = lower_bounds(graph, point, around, ball)
    dense = ForwardBounder().node_bounds(graph, ball).output.lower.reshape(mine.shape)
    center = graph.evaluate(point[None])
    assert np.mean(center - mine) <= 1.1 * np.mean(center - dense)


def test_other_networks_and_balls_are_left_to_others():
    builder = GraphBuilder((1, 1, 4, 4))
    builder.chain("tanh", activation("Tanh", (1, 1, 4, 4)), 0)
    assert not windowed(builder.build())
    graph = convolutional("plain", 1)
    point, ball = question(graph, 1)
    parts = ball.parts.copy()
    parts[:, :2] = 0
    around = graph.intervals(Box(point[None], point[None]).interval(graph.input_shape))
    assert lower_bounds(graph, point, around, L0Ball(ball.box, ball.base, parts, (3,), ball.coordinates)) is None
