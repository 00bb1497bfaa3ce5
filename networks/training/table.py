"""The networks of the source paper's table: `python -m networks.training.table --dataset mnist --data DATA --out DIR`.

Trust: heuristic. Eight classifiers, trained on the standard and on the augmented set, against projected gradients
(Madry et al. 2018) and by distillation (Papernot et al. 2016), and a generator a class for the augmented set.
"""

from dataclasses import replace

from networks.training.command import chosen
from networks.training.data import moved_copies
from networks.training.family import run_family
from networks.training.recipes import AdversarialRecipe, ClassifierRecipe, DistilledRecipe, Recipe
from networks.training.sets import DataSet, parse

MODULE = "networks.training.table"
SIZES = ("small", "medium", "large")
WIDTHS = {64: ((32, 32), (64, 64), (128, 64)), 784: ((32, 64, 200), (64, 128, 256), (64, 128, 512))}
"""Hidden widths by the number of pixels; those for 784 are the paper's."""

EPOCHS = {64: 200, 784: 20}
MADRY_EPOCHS = {64: 200, 784: 5}
"""Each costs eight of the others: seven gradients before every step."""

BATCH = {64: 32, 784: 128}
COPIES = 4
"""The augmented set is as many times as large: as many times fewer epochs."""


def standard_recipes(data: DataSet) -> tuple[Recipe, ...]:
    """The classifiers that are trained on the standard set."""
    shape = _shape(data)
    small, slow = WIDTHS[data.pixels][0], {"epochs": MADRY_EPOCHS[data.pixels]}
    return (
        *(
            ClassifierRecipe(name=f"c_standard_{size}", hidden=hidden, seed=600 + k, **shape)
            for k, (size, hidden) in enumerate(zip(SIZES, WIDTHS[data.pixels], strict=True))
        ),
        AdversarialRecipe(name="c_adversarial", hidden=small, seed=610, **{**shape, **slow}),
        DistilledRecipe(name="c_distilled", hidden=small, seed=611, **shape),
    )


def augmented_recipes(data: DataSet) -> tuple[Recipe, ...]:
    """Classifiers and generators of the augmented set."""
    shape = {**_shape(data), "epochs": EPOCHS[data.pixels] // 2}
    classifiers = [
        ClassifierRecipe(name=f"c_augmented_{size}", hidden=hidden, seed=620 + k, **shape)
        for k, (size, hidden) in enumerate(zip(SIZES, WIDTHS[data.pixels], strict=True))
    ]
    generators = [
        replace(recipe, name=f"g_augmented_{recipe.label}", epochs=-(-recipe.epochs // COPIES), seed=recipe.seed + 3000)
        for recipe in data.generators
    ]
    return (*classifiers, *generators)


def _shape(data: DataSet) -> dict:
    unchanged = {"noise": 0.0, "shift": 0.0, "rotation": 0.0, "zoom": 0.0}
    training = {"epochs": EPOCHS[data.pixels], "batch": BATCH[data.pixels], "learning_rate": 2e-3}
    return {"pixels": data.pixels, **training, **unchanged}


def main(argv: list[str] | None = None) -> None:
    """Train what is missing and record it in MANIFEST.json; generators are judged on the set they were trained on."""
    options = parse(MODULE, "Train the networks of the source paper's table.", argv)
    standard, only = options.dataset.load(options.data), chosen(options.only)
    for recipes, prepare in ((standard_recipes, lambda data: data), (augmented_recipes, moved_copies)):
        made = recipes(options.dataset)
        mine = tuple(recipe.name for recipe in made if not only or recipe.name in only)
        if not mine:
            continue
        data = prepare(standard)
        run_family(options.dataset.family(options, made, data, data), mine, options.sheets)


if __name__ == "__main__":
    main()
