"""The source paper's generators: `python -m networks.training.paper --dataset mnist --data DATA --out DIR`.

Trust: heuristic. Per class its GAN and the same with a clip at the end (Fijalkow and Gupta 2019), on the standard set
and on the augmented one, and the clipped one on two disjoint halves. Its classifiers: networks.training.table.
"""

from collections.abc import Callable
from dataclasses import dataclass

from networks.training.command import chosen
from networks.training.data import HALVES, Pictures, half_of, moved_copies
from networks.training.family import run_family
from networks.training.recipes import GanRecipe, Recipe
from networks.training.sets import CLASSES, parse

MODULE = "networks.training.paper"
PIXELS = 784


@dataclass(frozen=True)
class Part:
    """Networks that are trained on the same pictures, made from the data set by `prepare`."""

    recipes: tuple[Recipe, ...]
    prepare: Callable[[Pictures], Pictures]


def gans(name: str, output: str, seed: int, epochs: int) -> tuple[Recipe, ...]:
    """One generator a class."""
    return tuple(
        GanRecipe(name=f"{name}_{label}", label=label, pixels=PIXELS, output=output, epochs=epochs, seed=seed + label)
        for label in range(CLASSES)
    )


def parts() -> tuple[Part, ...]:
    """All networks; four times the steps on the augmented set (with as many as on the standard one the judge takes 64 %
    of the eights for eights), on halves as many as on the whole.
    """
    standard = (*gans("gan", "tanh", 700, 60), *gans("gan_clip", "clip", 720, 60))
    moved = (*gans("gan_augmented", "tanh", 740, 60), *gans("gan_clip_augmented", "clip", 760, 60))
    halves = [
        Part(gans(f"gan_half_{half}", "clip", 780 + 20 * k, 120), lambda data, half=half: half_of(data, half))
        for k, half in enumerate(HALVES)
    ]
    return (Part(standard, lambda data: data), Part(moved, moved_copies), *halves)


def main(argv: list[str] | None = None) -> None:
    """Train what is missing of the named networks (all without --only) and record it in MANIFEST.json."""
    options = parse(MODULE, "Train the source paper's generators.", argv)
    only, made = chosen(options.only), parts()
    known = {recipe.name for part in made for recipe in part.recipes}
    if not set(only) <= known:
        raise SystemExit(f"no recipe named {', '.join(sorted(set(only) - known))} (there are gan_0 ... gan_half_b_9)")
    if options.dataset.pixels != PIXELS:
        raise SystemExit(f"the paper's generators make {PIXELS} pixels; give --dataset mnist or fashion_mnist")
    data = options.dataset.load(options.data)
    for part in made:
        mine = tuple(recipe.name for recipe in part.recipes if not only or recipe.name in only)
        if not mine:
            continue
        drawn_from = part.prepare(data)
        judged = drawn_from if part.prepare is moved_copies else data
        run_family(options.dataset.family(options, part.recipes, drawn_from, judged), mine, options.sheets)


if __name__ == "__main__":
    main()
