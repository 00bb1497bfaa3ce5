"""Random tiny networks of every piecewise linear operator, with weights, biases and scales that invite mistakes.

In: a random generator. Out: PlainNetwork and what is nasty about it. Trust: heuristic (it decides what is tried).
"""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from tests.onnx_meaning import BENT, PlainNetwork, Step, X, meaning

UNITS = 12
"""Inputs of operators that bend, at most."""

ACTIVATIONS = ("Relu", "LeakyRelu", "PRelu", "Abs", "Clip", "HardSigmoid")
"""The elementwise ones of BENT."""


def _eighths(random, shape):
    return random.integers(-12, 13, size=shape) / 8.0


def _signs(random, shape):
    return random.integers(-1, 2, size=shape).astype(np.float64)


def _decimals(random, shape):
    return np.round(random.normal(size=shape), 1)


def _near_zero(random, shape):
    """A third of the weights is what weight decay leaves, down to subnormal numbers of float32."""
    tiny = random.choice([1e-21, -1e-21, 1e-30, 1e-37, -1e-42, 0.0], size=shape)
    return np.where(random.random(shape) < 0.35, tiny, random.normal(size=shape))


def _wide(random, shape):
    return random.normal(size=shape) * 10.0 ** random.uniform(-9, 4, size=shape)


THEMES: dict[str, Callable] = {
    "eighths": _eighths,
    "signs": _signs,
    "decimals": _decimals,
    "normal": lambda random, shape: random.normal(size=shape),
    "near zero": _near_zero,
    "wide": _wide,
}
"""How the weights of a network are drawn."""


@dataclass
class _Draw:
    """A network while it is drawn; `examples` holds one value per node, for its shape."""

    random: np.random.Generator
    theme: str
    element: str
    tags: set[str]
    units: int = UNITS
    steps: list[Step] = field(default_factory=list)
    constants: dict[str, np.ndarray] = field(default_factory=dict)
    examples: dict[str, np.ndarray] = field(default_factory=dict)

    def chance(self, probability: float) -> bool:
        """True with the probability."""
        return bool(self.random.random() < probability)

    def pick(self, *choices):
        """One of the choices."""
        return choices[int(self.random.integers(len(choices)))]

    def numbers(self, *shape) -> np.ndarray:
        """Weights of the theme, as numbers of the element type."""
        return THEMES[self.theme](self.random, shape).astype(self.element).astype(np.float64)

    def shape(self, name: str) -> tuple[int, ...]:
        """Shape of a value."""
        return self.examples[name].shape[1:]

    def size(self, name: str) -> int:
        """Number of elements of a value."""
        return int(np.prod(self.shape(name)))

    def add(self, kind: str, *inputs, **attributes) -> str:
        """One more node; arrays among the inputs become constants. Returns the name of its output."""
        output, names = f"v{len(self.steps)}", []
        for index, value in enumerate(inputs):
            names.append(value if isinstance(value, str) else f"{output}.{index}")
            if not isinstance(value, str):
                self.constants[names[-1]] = np.asarray(value)
        step = Step(kind, tuple(names), output, attributes)
        if kind in BENT:
            self.units -= max(self.size(name) for name in names if name in self.examples)
        self.steps.append(step)
        network = PlainNetwork(self.shape(X), (), self.constants)
        self.examples[output] = meaning(step, *network.arguments(step, self.examples))
        return output

    def reshaped(self, name: str, *shape: int) -> str:
        """The value in another shape, by one of the operators that can."""
        if shape == (1, self.size(name)) and self.shape(name)[:1] == (1,) and self.chance(0.4):
            return self.add("Flatten", name, axis=1)
        if shape == self.shape(name):
            return name
        if shape == (1, *self.shape(name)) and self.chance(0.5):
            return self.add("Unsqueeze", name, np.array([0]))
        return self.add("Reshape", name, np.array(shape))


def _dense(draw: _Draw, name: str, width: int) -> str:
    """x W + b, by Gemm, MatMul or a MatMul from the left."""
    rows = draw.size(name)
    flat = draw.reshaped(name, 1, rows)
    weights, bias = draw.numbers(rows, width), draw.numbers(width)
    way = draw.pick("gemm", "gemm", "transposed", "scaled", "matmul", "left", "bare")
    if way == "gemm":
        return draw.add("Gemm", flat, weights, bias)
    if way == "transposed":
        return draw.add("Gemm", flat, weights.T.copy(), bias[None], transB=1)
    if way == "scaled" and draw.element == "float32":
        return draw.add("Gemm", flat, weights, bias, alpha=draw.pick(0.5, 0.3, -1.0), beta=draw.pick(2.0, 1.7))
    if way == "left":
        left = draw.add("MatMul", weights.T.copy(), draw.add("Transpose", flat, perm=[1, 0]))
        return draw.add("Transpose", draw.add("Add", left, bias[:, None]), perm=[1, 0])
    made = draw.add("MatMul", flat, weights)
    return made if way == "bare" else draw.add("Add", *draw.pick((made, bias), (bias, made)))


def _activation(draw: _Draw, name: str, kinds=ACTIVATIONS) -> str:
    """An elementwise operator that bends, while units are left."""
    if draw.size(name) > draw.units:
        return name
    kind = draw.pick(*kinds)
    if kind == "LeakyRelu":
        return draw.add(kind, name, alpha=draw.pick(0.01, 0.2, 0.25, 0.5, 0.0, 1.0))
    if kind == "PRelu":
        slope = draw.pick(draw.numbers(1), draw.numbers(*draw.shape(name)), np.array([1.5]), np.array([-0.25]))
        return draw.add(kind, name, slope)
    if kind == "HardSigmoid":
        options = draw.pick({}, {"alpha": 0.25, "beta": 0.5}, {"alpha": 0.3, "beta": 0.1}, {"alpha": -1.0, "beta": 0.0})
        return draw.add(kind, name, **options)
    if kind == "Clip":
        low, high = sorted(draw.numbers(2).tolist())
        ends = draw.pick((0.0, 1.0), (0.0, 6.0), (-1.0, 1.0), (low, high), (low, None), (None, high), (low, low))
        arrays = ["" if end is None else np.array(end) for end in ends]
        return draw.add(kind, name, *(arrays[:1] if arrays[1] == "" else arrays))
    return draw.add(kind, name)


def _layer(draw: _Draw, name: str) -> str:
    width = int(draw.random.integers(1, 1 + max(1, min(5, draw.units))))
    return _activation(draw, _shifted(draw, _dense(draw, name, width)))


def _residual(draw: _Draw, name: str) -> str:
    """f(x) + x, f(x) - x or x - f(x)."""
    width = draw.size(name)
    inner = _dense(draw, _layer(draw, name), width)
    around = draw.reshaped(name, *draw.shape(inner))
    total = draw.add(draw.pick("Add", "Sub"), *draw.pick((inner, around), (around, inner)))
    return _activation(draw, total) if draw.chance(0.5) else total


def _branches(draw: _Draw, name: str) -> str:
    """Two or three branches joined."""
    flat = draw.reshaped(name, 1, draw.size(name))
    parts = [_layer(draw, flat), draw.pick(flat, _layer(draw, flat))]
    parts += [_layer(draw, flat)] if draw.chance(0.2) else []
    return draw.add("Concat", *parts, axis=draw.pick(1, -1))


def _difference(draw: _Draw, name: str) -> str:
    """Two branches with large biases that cancel in their difference."""
    draw.tags.add("cancelling biases")
    width, large = draw.pick(1, 2, 3), draw.pick(1e3, 1e6, 2.0**20)
    pair = [draw.add("Add", _dense(draw, name, width), np.full(width, large)) for _ in range(2)]
    if draw.chance(0.5) and 2 * width <= draw.units:
        pair = [draw.add("Relu", part) for part in pair]
    return _activation(draw, draw.add("Sub", *pair))


def _shifted(draw: _Draw, name: str) -> str:
    """Sometimes + K, an operator or none, - K with a large K: over the reals nothing happened, or a unit is stable."""
    if not draw.chance(0.12):
        return name
    draw.tags.add("cancelling biases")
    large = np.array([draw.pick(1e3, 1e6, 2.0**20, 16777216.0)])
    moved = draw.add("Add", name, large)
    if draw.size(name) <= draw.units and draw.chance(0.4):
        moved = draw.add("Relu", moved)
    return draw.add("Sub", moved, large)


def _scaled(draw: _Draw, name: str) -> str:
    """Scaled down to where numbers become subnormal, an operator, and up again."""
    draw.tags.add("subnormal scales")
    powers = (500, 1000, 1040) if draw.element == "float64" else (60, 100, 126, 140)
    power = int(draw.pick(*powers))
    down, up = np.array([2.0**-power]), power // 2
    small = draw.add("Mul", name, down)
    small = _activation(draw, small, ("Relu", "LeakyRelu", "Abs", "PRelu"))
    return draw.add("Mul", draw.add("Mul", small, np.array([2.0**up])), np.array([2.0 ** (power - up)]))


def _convolution(draw: _Draw, name: str) -> str:
    """Conv along a line or over a square, an activation, perhaps a pooling."""
    size = draw.size(name)
    if draw.chance(0.5):
        image = draw.reshaped(name, 1, *draw.pick((1, size), (size, 1)))
    else:
        image = draw.reshaped(_dense(draw, name, 4), 1, 1, 2, 2)
    channels, rank = draw.shape(image)[1], len(draw.shape(image)) - 2
    kernel = [min(draw.pick(1, 2, 2), n) for n in draw.shape(image)[2:]]
    pads = draw.pick([0] * 2 * rank, [draw.pick(0, 1) for _ in range(2 * rank)])
    out, weights = draw.pick(1, 2), draw.numbers
    strides = [draw.pick(1, 2) for _ in range(rank)]
    bias = [draw.numbers(out)] if draw.chance(0.7) else []
    made = draw.add("Conv", image, weights(out, channels, *kernel), *bias, pads=pads, strides=strides)
    made = _activation(draw, made)
    return _pooling(draw, made) if draw.chance(0.5) else made


def _transposed(draw: _Draw, name: str) -> str:
    size = draw.size(name)
    line = draw.reshaped(name, 1, *draw.pick((1, size), (size, 1)))
    channels, kernel = draw.shape(line)[1], draw.pick(1, 2)
    bias = [draw.numbers(1)] if draw.chance(0.5) else []
    stride = draw.pick(1, 2)
    made = draw.add("ConvTranspose", line, draw.numbers(channels, 1, kernel), *bias, strides=[stride])
    return _activation(draw, made)


def _pooling(draw: _Draw, name: str) -> str:
    """MaxPool or AveragePool over a line or a plane of what is there."""
    if len(draw.shape(name)) < 3:
        size = draw.size(name)
        name = draw.reshaped(name, 1, *draw.pick((1, size), (1, 1, size)))
    spatial = draw.shape(name)[2:]
    bending = draw.size(name) <= draw.units and draw.chance(0.75)
    if draw.chance(0.15) and (not bending or int(np.prod(spatial)) <= 4):
        return draw.add("GlobalMaxPool" if bending else "GlobalAveragePool", name)
    kernel = [min(draw.pick(1, 2, 2, 3), n) for n in spatial]
    pads = [0] * 2 * len(spatial)
    if draw.chance(0.3):
        pads = [int(draw.random.integers(0, k)) for k in (*kernel, *kernel)]
    options = {"kernel_shape": kernel, "strides": [draw.pick(1, 2) for _ in spatial], "pads": pads}
    if not bending and any(pads) and draw.chance(0.5):
        options["count_include_pad"] = 1
    return draw.add("MaxPool" if bending else "AveragePool", name, **options)


def _normalised(draw: _Draw, name: str) -> str:
    """BatchNormalization with rational standard deviations, so that its meaning is rational."""
    if len(draw.shape(name)) < 2:
        name = draw.reshaped(name, 1, draw.size(name))
    channels = draw.shape(name)[1]
    epsilon = draw.pick(0.0, 2.0**-10)
    deviation = draw.random.choice([0.5, 0.75, 1.0, 1.5, 3.0], size=channels)
    statistics = (draw.numbers(channels), draw.numbers(channels), draw.numbers(channels), deviation**2 - epsilon)
    return draw.add("BatchNormalization", name, *statistics, epsilon=epsilon)


def _arithmetic(draw: _Draw, name: str) -> str:
    """Add, Sub, Mul or Div with a constant on either side."""
    kind = draw.pick("Add", "Sub", "Mul", "Div", "Neg", "Sum", "Mean")
    if kind == "Neg":
        return draw.add(kind, name)
    constant = draw.numbers(*draw.pick((1,), draw.shape(name)))
    if kind == "Div":
        constant = np.where(np.abs(constant) < 1e-3, 3.0, constant)
    first = kind != "Div" and draw.chance(0.4)
    if kind in ("Sum", "Mean") and draw.chance(0.4):
        return draw.add(kind, name, constant, name)
    return draw.add(kind, *((constant, name) if first else (name, constant)))


def _extreme(draw: _Draw, name: str) -> str:
    """Max or Min of values and constants, or along an axis; or what clips without being a Clip."""
    size, way = draw.size(name), draw.pick("values", "constant", "constants", "axis", "chain")
    way = way if draw.shape(name) else "constant"
    if 2 * size > draw.units:
        return name
    kind = draw.pick("Max", "Min")
    if way == "values":
        return draw.add(kind, _dense(draw, name, size), draw.reshaped(name, 1, size))
    if way == "constant":
        return draw.add(kind, *draw.pick((name, draw.numbers(1)), (draw.numbers(*draw.shape(name)), name)))
    if way == "constants":
        low, high = np.sort(draw.numbers(2))[:, None]
        return draw.add("Max", draw.add("Min", name, high), low)
    if way == "axis":
        if draw.chance(0.3):
            return draw.add("ReduceSum", name, np.array([draw.pick(0, -1)]))
        kind = draw.pick("ReduceMax", "ReduceMin", "ReduceMean")
        return draw.add(kind, name, axes=[draw.pick(len(draw.shape(name)) - 1, -1)], keepdims=draw.pick(0, 1))
    # b - relu(b - relu(x)): a Clip made of two ReLUs
    top = draw.numbers(1)
    under = draw.add("Sub", top, draw.add("Relu", name))
    return draw.add("Sub", top, draw.add("Relu", under))


def _moved(draw: _Draw, name: str) -> str:
    """Operators that only move values."""
    size = draw.size(name)
    flat = draw.reshaped(name, 1, size)
    kind = draw.pick("Transpose", "Slice", "Pad", "Identity", "Squeeze", "Gather")
    if kind == "Gather":
        indices = draw.random.integers(-size, size, size=draw.pick(1, 2, 3))
        return draw.add("Gather", flat, indices, axis=1)
    if kind == "Transpose" and size % 2 == 0:
        return draw.add("Transpose", draw.reshaped(flat, 1, 2, size // 2), perm=[0, 2, 1])
    if kind == "Slice" and size > 1:
        start = int(draw.random.integers(0, 2))
        return draw.add("Slice", flat, *(np.array([i]) for i in (start, size, 1)))
    if kind == "Pad":
        value = [draw.numbers(1).reshape(())] if draw.chance(0.5) else []
        return draw.add("Pad", flat, np.array([0, draw.pick(0, 1), 0, 1]), *value)
    if kind == "Squeeze":
        return draw.add("Squeeze", draw.reshaped(flat, 1, size, 1), np.array([2]))
    return draw.add("Identity", flat)


STAGES = {
    _layer: 6, _residual: 3, _branches: 3, _convolution: 3, _transposed: 1, _pooling: 5, _difference: 1, _scaled: 1,
    _normalised: 1, _arithmetic: 2, _moved: 2, _extreme: 3,
}
"""What a network is made of, with weights."""


def random_network(
    random: np.random.Generator, element: str | None = None, outputs: int | None = None
) -> tuple[PlainNetwork, set[str]]:
    """A network of 2 or 3 inputs with at most UNITS inputs of operators that bend, and what is nasty about it.

    element and outputs (1 to 3, or as many) are drawn where they are not given.
    """
    theme = str(random.choice(list(THEMES)))
    element = element or ("float64" if random.random() < 0.2 else "float32")
    draw = _Draw(random, theme, element, {f"weights {theme}", element})
    inputs = draw.pick(2, 3)
    shape = draw.pick((1, inputs), (1, inputs), (1, inputs), (inputs,), (1, 1, inputs), (1, inputs, 1))
    draw.examples[X] = np.zeros((1, *shape))
    last, chances = X, np.array(list(STAGES.values())) / sum(STAGES.values())
    for _ in range(draw.pick(2, 3, 3, 4, 5)):
        last = list(STAGES)[int(random.choice(len(STAGES), p=chances))](draw, last)
    if not any(step.kind in BENT for step in draw.steps):
        last = _layer(draw, last)
    if outputs is not None or draw.size(last) > 3 or draw.chance(0.6):
        last = _dense(draw, last, outputs or draw.pick(1, 2, 2, 3))
    return _pruned(PlainNetwork(shape, tuple(draw.steps), draw.constants, element), last), draw.tags


def _pruned(network: PlainNetwork, last: str) -> PlainNetwork:
    """The network without steps that its output does not need (branches may be drawn and not taken)."""
    needed, kept = {last}, []
    for step in reversed(network.steps):
        if step.output in needed:
            kept.append(step)
            needed.update(step.inputs)
    constants = {name: value for name, value in network.constants.items() if name in needed}
    return PlainNetwork(network.shape, tuple(reversed(kept)), constants, network.element)
