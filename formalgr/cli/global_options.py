"""Options of `formalgr global` alone: the whole curve, regions of the latent space, another distribution.

In: a parser. Out: its options. Trust: sound (as cli/options).
"""

import argparse

from formalgr.cli import options
from formalgr.core.errors import UsageError


def add_frontier_options(parser: options.Parser) -> None:
    """The whole curve."""
    group = parser.add_argument_group("all radii at once")
    group.add_argument(
        "--frontier",
        action="store_true",
        help="bounds of the failure probability at every radius, and of the radius's quantiles and mean; --epsilon is "
        "then a radius of interest, and several STUDY.toml or --classifier are compared sample by sample",
    )
    group.add_argument(
        "--max-epsilon",
        type=options.radius,
        metavar="E",
        help="largest radius looked at with --frontier (default 0.5); with --mass: proven bounds at 21 radii too",
    )


def add_shift_options(parser: options.Parser) -> None:
    """What the user knows of another distribution of the latents."""
    group = parser.add_argument_group("another distribution of the latents, as far as you know it")
    group.add_argument(
        "--shift-distance",
        type=options.radius,
        metavar="S",
        help="its latents are those of the prior, moved by at most S (L-infinity): tells what is certified for it too",
    )
    group.add_argument(
        "--shift-probability", type=options.share, metavar="P", help="but for a share P of them, which may be anywhere"
    )
    group.add_argument(
        "--shift-ratio",
        type=options.positive,
        metavar="R",
        help="before that, its density is at most R times the prior's, R >= 1",
    )


def add_margin_options(parser: options.Parser) -> None:
    """One margin for many samples, before each is checked on its own."""
    group = parser.add_argument_group("a first stage for all samples of a class")
    group.add_argument(
        "--margin-box",
        metavar="LOW,HIGH",
        help="bound the largest margin that any pair of latents of this box breaks (as `formalgr twin --margin`): "
        "samples in the box with a larger margin are proven by one evaluation",
    )
    group.add_argument(
        "--margin-seconds",
        type=options.seconds,
        default=10.0,
        metavar="S",
        help="limit of that bound for one class (default 10)",
    )


def first_stage(args: argparse.Namespace):
    """The FirstStage that the arguments describe, None where they describe none. Raises UsageError for a bad box."""
    from formalgr.core.decimals import written
    from formalgr.global_robustness.threshold import FirstStage

    if getattr(args, "margin_box", None) is None:
        return None
    low, _, high = args.margin_box.partition(",")
    try:
        ends = written(low), written(high)
    except ValueError:
        raise UsageError(f"--margin-box takes LOW,HIGH, got {args.margin_box!r}") from None
    return FirstStage(low=ends[0], high=ends[1], seconds=args.margin_seconds)


def add_mass_options(parser: options.Parser) -> None:
    """Proofs about regions of the latent space instead of samples, or beside them."""
    group = parser.add_argument_group("regions of the latent space")
    group.add_argument(
        "--mass",
        action="store_true",
        help="up to 4 latents: prove which regions fail and which are robust, and bound the failure probability by "
        "their mass; no sampling, no confidence level (--delta is optional)",
    )
    group.add_argument(
        "--hybrid",
        action="store_true",
        help="the same, and then sample the rest: -n latents of the regions that stay open, at confidence 1 - alpha",
    )
    group.add_argument(
        "--gap",
        type=options.share,
        metavar="G",
        help="width of the bounds where regions are enough (default: as wide as decides --delta, else 0.001)",
    )
    group.add_argument(
        "--region-seconds",
        type=options.seconds,
        default=10.0,
        metavar="S",
        help="with --hybrid: limit of the regions of one class (default 10)",
    )
