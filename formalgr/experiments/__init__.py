"""The experiments of the source papers; their Python interface (see interface.py) is imported at first use."""

import importlib

__all__ = [
    "adversarial_pairs",
    "classifier_table",
    "confidence_shares",
    "fgsm_scores",
    "generator_dependence",
    "generator_movement",
    "global_correctness",
    "misclassified",
    "random_walk",
    "samples_of",
]


def __getattr__(name: str) -> object:
    if name in __all__:
        return getattr(importlib.import_module("formalgr.experiments.interface"), name)
    raise AttributeError(f"module 'formalgr.experiments' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
