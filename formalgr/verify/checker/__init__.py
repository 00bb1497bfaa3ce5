"""An independent checker of certificates: own reading of ONNX, integers and rationals only, no other part of formalgr.

In: certificate bytes, ONNX bytes. Out: what is proven, or why the certificate proves nothing. Trust: sound.
"""

from formalgr.verify.checker.claim import Rejected, Unreadable
from formalgr.verify.checker.proof import Checker, Proven

__all__ = ["Checker", "Proven", "Rejected", "Unreadable"]
