"""Two sets of digits generators from disjoint halves of the data: `python -m networks.training.halves`.

Trust: heuristic. The same recipe for both: what differs between them is the data (Fijalkow and Gupta 2019, dependence).
"""

from dataclasses import replace

from networks.training.command import chosen, training_parser
from networks.training.data import HALVES, half_of, load_digits_pictures
from networks.training.digits import digits_recipes
from networks.training.family import Family, run_family
from networks.training.judge import support_vector_judge
from networks.training.recipes import GeneratorRecipe, Recipe

MODULE = "networks.training.halves"
EPOCHS = 400  # of half the pictures: the samples are recognised as well as after the whole recipe's 1000


def half_recipes(half: str) -> tuple[Recipe, ...]:
    """The digits' generator recipes under other names and seeds, with fewer epochs."""
    shift = 1000 * (1 + HALVES.index(half))
    names = {f"g_{label}" for label in range(10)}
    generators = [recipe for recipe in digits_recipes() if isinstance(recipe, GeneratorRecipe) and recipe.name in names]
    return tuple(
        replace(recipe, name=f"half_{half}_{recipe.label}", epochs=EPOCHS, seed=recipe.seed + shift)
        for recipe in generators
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
