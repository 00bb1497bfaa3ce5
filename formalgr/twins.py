"""The Python interface to pairs of close inputs: how far outputs change between them, which margins they break.

In: network, domain, plain numbers. Out: PairBracket. Trust: sound (verify/twin decides).
"""

from fractions import Fraction
from typing import TypedDict, Unpack

from formalgr.arguments import check_keywords, drawn, limit
from formalgr.core.box import RationalBox
from formalgr.core.budget import Budget
from formalgr.core.progress import Progress
from formalgr.graph.network import Network
from formalgr.spec.robustness import radius_of
from formalgr.verify.options import VerifyOptions
from formalgr.verify.twin import PairBracket, TwinOptions, change_bracket, margin_bracket


class TwinKeywords(TypedDict, total=False):
    """Keyword arguments of `twin` that say how fine and how hard, with the defaults of TwinOptions."""

    epsilon: float | str | Fraction | None
    label_rule: str
    tolerance: float
    parts: int
    options: VerifyOptions


def twin(
    network: Network,
    domain: RationalBox,
    delta: float | str | Fraction,
    *,
    margin: int | None = None,
    progress: bool | Progress = False,
    timeout_seconds: float = float("inf"),
    **options: Unpack[TwinKeywords],
) -> PairBracket:
    """lower <= largest change of an output between inputs of the domain at most `delta` apart <= upper.

    With `margin=label`: the largest margin of the label at an input that has one without it within delta. On a
    generator give fg.compose(generator, classifier) and a box of latents. Keywords: epsilon (stop when every change is
    below it, or one is not), label_rule (argmax), tolerance (0.1: the width wanted, as a share of the upper end),
    parts, options (VerifyOptions). Both ends hold whenever time ends. Raises UsageError on bad values, ModelError when
    the domain does not fit the network or an operator is not supported.
    """
    check_keywords("twin", options, TwinKeywords)
    given = dict(options)
    epsilon = given.pop("epsilon", None)
    settings = TwinOptions(
        epsilon=None if epsilon is None else radius_of(epsilon),
        local=given.pop("options", None) or VerifyOptions(),
        **given,
    )
    with drawn(progress) as display:
        how = (domain, delta, settings, Budget(limit(timeout_seconds)), display)
        return change_bracket(network, *how) if margin is None else margin_bracket(network, margin, *how)
