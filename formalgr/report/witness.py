"""The result of one instance as VNN-LIB 1.0 and the scorer of VNN-COMP read it.

In: a word, a counterexample. Out: text. Trust: sound (it repeats what was decided). Imports nothing heavy.
"""

import numpy as np

from formalgr.core.verdict import Counterexample


def result_text(word: str, witness: str | None) -> str:
    """The word on the first line; after sat the witness below it."""
    return word if witness is None else f"{word}\n{witness}"


def vnnlib_witness(counterexample: Counterexample, judged: bool = False) -> str:
    """The witness as VNN-LIB 1.0 writes it: ((X_0 v) ... (Y_0 v)), a pair a line; numbers read back unchanged.

    Outputs are those over the reals; `judged`: those that onnxruntime computes.
    """
    outputs = counterexample.float32_outputs if judged else counterexample.outputs
    pairs = [f"(X_{k} {_number(x)})" for k, x in enumerate(counterexample.inputs.tolist())]
    pairs += [f"(Y_{k} {_number(y)})" for k, y in enumerate(outputs.tolist())]
    return "(" + "\n ".join(pairs) + ")"


def _number(value: float) -> str:
    """The shortest decimal without an exponent that reads back as the same float64."""
    return np.format_float_positional(value, unique=True, trim="0")
