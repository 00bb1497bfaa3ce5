"""Two sets of generators from disjoint halves of the data: `python -m networks.training.halves --out networks/digits`.

Trust: heuristic. The same recipe for both: what differs between them is the data (Fijalkow and Gupta 2019, dependence).
"""

from dataclasses import replace

from networks.training.command import chosen
from networks.training.data import HALVES, half_of
from networks.training.family import run_family
from networks.training.recipes import Recipe
from networks.training.sets import DataSet, parse

MODULE = "networks.training.halves"
EPOCHS = {"digits": 400, "mnist": 100, "fashion_mnist": 100}
"""Half the pictures: twice the epochs. The digits' samples are recognised as well as after the whole recipe's 1000."""


def half_recipes(data: DataSet, half: str) -> tuple[Recipe, ...]:
    """The generator recipes under other names and seeds."""
    shift = 1000 * (1 + HALVES.index(half))
    return tuple(
        replace(recipe, name=f"half_{half}_{recipe.label}", epochs=EPOCHS[data.name], seed=recipe.seed + shift)
        for recipe in data.generators
    )


def main(argv: list[str] | None = None) -> None:
    """Train what is missing of both sets and record it in MANIFEST.json."""
    options = parse(MODULE, "Train generators on disjoint halves.", argv)
    whole, only = options.dataset.load(options.data), chosen(options.only)
    for half in HALVES:
        recipes = half_recipes(options.dataset, half)
        mine = tuple(name for name in only if name in {recipe.name for recipe in recipes})
        if only and not mine:
            continue
        family = options.dataset.family(options, recipes, half_of(whole, half), whole)
        run_family(family, mine, options.sheets)


if __name__ == "__main__":
    main()
