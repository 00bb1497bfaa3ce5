"""Tiny studies written as ONNX files, with generators and classifiers whose failure probability is known exactly.

All weights are multiples of 1/8, so that float32 files hold them and fractions decide every single latent.
"""

from fractions import Fraction
from pathlib import Path

import numpy as np

from formalgr.global_robustness.study import Study
from formalgr.graph.network import Network
from formalgr.graph.onnx_writer import write
from tests.zoo import chain


def identity(latent: int) -> Network:
    """G(z) = z."""
    return chain(latent, (np.eye(latent), np.zeros(latent)))


def within_cube(latent: int, tau: float) -> Network:
    """Logits (0, tau - max_j |z_j|): class 1 iff max_j |z_j| < tau; ReLUs only, max(m, a) = m + relu(a - m)."""
    pluses = np.concatenate([np.eye(latent), -np.eye(latent)])
    parts = [(pluses, np.zeros(2 * latent)), "Relu"]
    # the state is the running maximum (as a sum of `width` units that are >= 0), then the |z_j| that are left
    state = np.concatenate([np.eye(latent), np.eye(latent)], axis=1)
    while len(state) > 1:
        maximum, first, rest = state[0], state[1], state[2:]
        rows = np.concatenate([[maximum], [first - maximum], rest])
        parts += [(rows, np.zeros(len(rows))), "Relu"]
        state = np.eye(len(rows))[1:]
        state[0] += np.eye(len(rows))[0]
    parts.append((np.concatenate([np.zeros_like(state), -state]), [0.0, tau]))
    return chain(latent, *parts)


def within_diamond(tau: float) -> Network:
    """Logits (0, tau - |z_1| - |z_2|): class 1 iff |z_1| + |z_2| < tau."""
    pluses = np.concatenate([np.eye(2), -np.eye(2)])
    return chain(2, (pluses, np.zeros(4)), "Relu", ([np.zeros(4), -np.ones(4)], [0.0, tau]))


def study(folder: Path, generators: dict[int, Network], classifier: Network, **options) -> Study:
    """The networks as files, so that loading, composing and onnxruntime take part."""
    folder.mkdir(parents=True, exist_ok=True)
    for label, generator in generators.items():
        write(generator.graph, folder / f"g_{label}.onnx")
    write(classifier.graph, folder / "c.onnx")
    paths = {label: folder / f"g_{label}.onnx" for label in generators}
    return Study(paths, folder / "c.onnx", **options)


def cube_study(folder: Path, latent: int = 2, tau: float = 2.0, labels=(0, 1), **options) -> Study:
    """G = identity for every class, class 1 inside the cube of half-width tau, class 0 outside."""
    return study(folder, dict.fromkeys(labels, identity(latent)), within_cube(latent, tau), **options)


def exact(values) -> list[Fraction]:
    """Floats as the rationals they are."""
    return [Fraction(float(value)) for value in np.asarray(values).reshape(-1)]
