"""Where the networks are that come with formalgr: in the installed package, or beside it in a checkout.

In: nothing. Out: paths. Trust: sound (a missing file raises).
"""

import importlib.resources
from pathlib import Path

import formalgr
from formalgr.core.errors import InputError


def digits() -> Path:
    """The folder of the digits networks (g_0.onnx ... g_9.onnx, c_128_64.onnx, c_32_32.onnx).

    Raises InputError when neither the package nor the checkout has it.
    """
    places = []
    try:
        first = importlib.resources.files("formalgr.networks.digits").joinpath("g_0.onnx")
        places.append(Path(str(first)).parent)
    except ModuleNotFoundError:
        pass  # not installed as a wheel
    places.append(Path(formalgr.__file__).resolve().parent.parent / "networks" / "digits")
    for place in places:
        if (place / "g_0.onnx").is_file():
            return place
    looked = ", ".join(map(str, places))
    raise InputError(f"the shipped networks are missing (looked in {looked}); install formalgr again")
