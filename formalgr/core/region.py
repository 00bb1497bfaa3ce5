"""Regions of inputs: all that bounds and search know of them.

In: linear forms over the inputs. Out: their minima, smaller regions. Trust: sound.
"""

from abc import ABC, abstractmethod

from formalgr.core.linear import LinearForm


class Region(ABC):
    """A batch of sets of inputs. Laws: `minimum` is below the form at every point; the parts of `split` cover."""

    @abstractmethod
    def minimum(self, form: LinearForm):
        """Lower bound of every row of `form` over the region, (batch, rows), rounded down."""

    @abstractmethod
    def split(self, axes) -> "Region":
        """Two regions per region, halved along the input `axes` (batch,); together they cover it."""
