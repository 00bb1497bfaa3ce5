"""formalgr: exact global robustness of classifiers on everything a generator can produce.

The names below are imported at first use, so that `import formalgr` costs nothing.
"""

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from formalgr.api import (
        CertifyOptions,
        Checked,
        GlobalCertificate,
        Guarantee,
        HybridOptions,
        L0Bracket,
        L0Options,
        LatentMass,
        Monitor,
        MonitorOptions,
        Network,
        Outcome,
        PairBracket,
        RadiusBracket,
        Semantics,
        Shift,
        Sighting,
        Study,
        Verdict,
        VerifyOptions,
        certify,
        check,
        compose,
        corollary,
        frontier,
        l0_radius,
        latent_ball,
        latent_mass,
        load,
        local_robustness,
        radius,
        read_vnnlib,
        twin,
        verify,
        write_certificate,
    )

__version__ = "0.1.0"

__all__ = [
    "CertifyOptions",
    "Checked",
    "GlobalCertificate",
    "Guarantee",
    "HybridOptions",
    "L0Bracket",
    "L0Options",
    "LatentMass",
    "Monitor",
    "MonitorOptions",
    "Network",
    "Outcome",
    "PairBracket",
    "RadiusBracket",
    "Semantics",
    "Sighting",
    "Shift",
    "Study",
    "Verdict",
    "VerifyOptions",
    "certify",
    "check",
    "compose",
    "corollary",
    "experiments",
    "frontier",
    "l0_radius",
    "latent_ball",
    "latent_mass",
    "load",
    "local_robustness",
    "radius",
    "read_vnnlib",
    "twin",
    "verify",
    "write_certificate",
]


def __getattr__(name: str) -> object:
    """The public name, imported at first use."""
    if name == "verify":
        return importlib.import_module("formalgr.verify")
    if name == "experiments":
        return importlib.import_module("formalgr.experiments")
    if name in __all__:
        return getattr(importlib.import_module("formalgr.api"), name)
    raise AttributeError(f"module 'formalgr' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _CallableModule(ModuleType):
    """The package formalgr.verify, which is called as the function formalgr.verify: one name, both meanings."""

    def __call__(self, *arguments: object, **options: object) -> object:
        """See formalgr.api.verify."""
        return importlib.import_module("formalgr.api").verify(*arguments, **options)


class _Package(ModuleType):
    """This package; importing its subpackage `verify` binds that name here, and must not hide the function."""

    def __setattr__(self, name: str, value: object) -> None:
        if name == "verify" and isinstance(value, ModuleType):
            value.__class__ = _CallableModule
        super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
