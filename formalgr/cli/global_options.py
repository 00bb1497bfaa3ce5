"""Options of `formalgr global` alone: the whole curve, regions of the latent space, another distribution.

In: a parser. Out: its options. Trust: sound (as cli/options).
"""

from formalgr.cli import options


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
