"""Regions of inputs: all that bounds know of them.

In: linear forms over the inputs. Out: their minima, the region as a box and as affine forms. Trust: sound.
"""

from abc import ABC, abstractmethod

from formalgr.core.linear import AffineForm, Interval, LinearForm


class Region(ABC):
    """A batch of sets of inputs. Laws: `minimum` is below the form at every point, `interval` and `affine` hold it."""

    @abstractmethod
    def minimum(self, form: LinearForm):
        """Lower bound of every row of `form` over the region, (batch, rows), rounded down."""

    @abstractmethod
    def interval(self, shape) -> Interval:
        """A sound box around the region, as the interval of an input node of the given shape."""

    @abstractmethod
    def affine(self, shape) -> AffineForm | None:
        """The region as an affine form of an input node of the given shape; None where it says less than `minimum`."""
