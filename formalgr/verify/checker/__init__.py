"""An independent checker of certificates: own reading of ONNX, integers alone, no other part of formalgr."""

from formalgr.verify.checker.claim import Rejected, Unreadable
from formalgr.verify.checker.proof import Checker, Proven

__all__ = ["Checker", "Proven", "Rejected", "Unreadable"]
