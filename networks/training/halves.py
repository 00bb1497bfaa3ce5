"""Two sets of digits generators from disjoint halves of the data: `python -m networks.training.halves`.

Trust: heuristic. The same recipe for both: what differs between them is the data (Fijalkow and Gupta 2019, dependence).
"""

from dataclasses import replace

import numpy as np

from networks.training.command import chosen, training_parser
from networks.training.data import SPLIT_SEED, Pictures, load_digits_pictures
from networks.training.digits import digits_recipes
from networks.training.family import Family, run_family
from networks.training.judge import support_vector_judge
from networks.training.recipes import GeneratorRecipe, Recipe

MODULE = "networks.training.halves"
HALVES = ("a", "b")


def half_of(data: Pictures, half: str) -> Pictures:
    """One half of the train pictures, every class split evenly by a fixed permutation; the test part stays whole."""
    order = np.random.default_rng(SPLIT_SEED).permutation(len(data.train_y))
    rank = np.empty(len(order), dtype=np.int64)
    for label in np.unique(data.train_y):
        mine = order[data.train_y[order] == label]
        rank[mine] = np.arange(len(mine))
    chosen_rows = np.nonzero(rank % 2 == HALVES.index(half))[0]
    told = f"{data.preprocessing}; half {half} of the train part, split with seed {SPLIT_SEED}"
    return replace(data, train_x=data.train_x[chosen_rows], train_y=data.train_y[chosen_rows], preprocessing=told)


def half_recipes(half: str) -> tuple[Recipe, ...]:
    """The digits' generator recipes under other names and seeds."""
    shift = 1000 * (1 + HALVES.index(half))
    generators = [recipe for recipe in digits_recipes() if isinstance(recipe, GeneratorRecipe)]
    return tuple(
        replace(recipe, name=f"half_{half}_{recipe.label}", seed=recipe.seed + shift) for recipe in generators
    )


def main(argv: list[str] | None = None) -> None:
    """Train what is missing of both sets and record it in MANIFEST.json."""
    options = training_parser(MODULE, "Train digits generators on disjoint halves.", "networks/digits").parse_args(argv)
    data, only = load_digits_pictures(), chosen(options.only)
    for half in HALVES:
        names = {recipe.name for recipe in half_recipes(half)}
        mine = tuple(name for name in only if name in names)
        if only and not mine:
            continue
        family = Family(
            name="digits",
            directory=options.out,
            data=half_of(data, half),
            recipes=half_recipes(half),
            command=f"python -m {MODULE} --out networks/digits",
            make_judge=lambda step: support_vector_judge(data, step),
            judge_epochs=1,
        )
        run_family(family, mine, options.sheets)


if __name__ == "__main__":
    main()
