"""The result of one instance as VNN-LIB and the scorer of VNN-COMP read it.

In: a word, a counterexample. Out: text. Trust: sound (it repeats what was decided). Imports nothing heavy.
"""

from collections.abc import Sequence
from itertools import islice

import numpy as np

from formalgr.core.verdict import Counterexample
from formalgr.spec.query import Declared


def result_text(word: str, witness: str | None) -> str:
    """The word on the first line; after sat the witness below it."""
    return word if witness is None else f"{word}\n{witness}"


def vnnlib_witness(counterexample: Counterexample, networks: Sequence[Declared] = (), judged: bool = False) -> str:
    """The witness as VNN-LIB writes it; numbers read back unchanged.

    1.0: ((X_0 v) ... (Y_0 v)), a pair a line. 2.0, where `networks` are declared: each input and output in the order of
    declaration, a line "name type [shape]" and then its values in row-major order, one a line. Outputs are those over
    the reals; `judged`: those that onnxruntime computes.
    """
    outputs = (counterexample.float32_outputs if judged else counterexample.outputs).tolist()
    inputs = counterexample.inputs.tolist()
    if not networks:
        pairs = [f"(X_{k} {_number(x)})" for k, x in enumerate(inputs)]
        pairs += [f"(Y_{k} {_number(y)})" for k, y in enumerate(outputs)]
        return "(" + "\n ".join(pairs) + ")"
    lines, given, made = [], iter(inputs), iter(outputs)
    for network in networks:
        for tensors, values in ((network.inputs, given), (network.outputs, made)):
            for tensor in tensors:
                lines.append(f"{tensor.name} {tensor.element} [{','.join(map(str, tensor.shape))}]")
                lines += [_number(value) for value in islice(values, tensor.size)]
    return "\n".join(lines)


def _number(value: float) -> str:
    """The shortest decimal without an exponent that reads back as the same float64."""
    return np.format_float_positional(value, unique=True, trim="0")
