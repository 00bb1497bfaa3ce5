"""Trains, exports, judges and records one family of networks. Trust: heuristic.

In: recipes and pictures. Out: ONNX files and manifest entries. A file that exists and was made by the same recipe is
kept, so an interrupted run goes on where it stopped.
"""

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from torch import nn

from networks.training.data import Pictures
from networks.training.export import check_export, export, run_onnx
from networks.training.gan import train_gan
from networks.training.judge import Judge
from networks.training.manifest import is_current, library_versions, read_manifest, record, sha256
from networks.training.models import Step, train_classifier, train_generator
from networks.training.recipes import (
    AdversarialRecipe,
    AnyGenerator,
    DistilledRecipe,
    GanRecipe,
    PictureRecipe,
    Recipe,
    fingerprint,
)
from networks.training.robust import train_adversarially, train_distilled
from networks.training.sheet import contact_sheet

SAMPLES, SAMPLE_SEED = 2000, 7  # latents z ~ N(0, I) on which a generator is judged
REQUIRED_ACCURACY, REQUIRED_SHARE = 0.97, 0.95  # of a classifier on test pictures, of a generator before the judge
SHEET_ROWS, SHEET_COLUMNS = 10, 16


@dataclass(frozen=True, kw_only=True)
class Family:
    """Networks trained on one data set into one directory; the manifest lies beside that directory.

    Generators need a judge.
    """

    name: str
    directory: Path
    data: Pictures
    recipes: tuple[Recipe, ...]
    command: str
    make_judge: Callable[[Step], Judge] | None = None
    judge_epochs: int = 0
    required_accuracy: float = REQUIRED_ACCURACY
    required_robust_accuracy: float = REQUIRED_ACCURACY
    required_share: float = REQUIRED_SHARE

    def __post_init__(self) -> None:
        names = [recipe.name for recipe in self.recipes]
        if len(set(names)) != len(names):
            raise ValueError(f"two recipes of family {self.name} have the same name: {names}")

    @property
    def manifest(self) -> Path:
        """MANIFEST.json beside the family's directory."""
        return self.directory.parent / "MANIFEST.json"

    def file(self, recipe: Recipe) -> Path:
        """The ONNX file of a recipe."""
        return self.directory / f"{recipe.name}.onnx"

    def key(self, recipe: Recipe) -> str:
        """The file's path relative to the manifest's directory."""
        return f"{self.directory.name}/{recipe.name}.onnx"


def run_family(family: Family, only: tuple[str, ...], sheets: Path | None) -> None:
    """Make the networks named in `only` (all if empty) that are missing; if any is a generator, judge all of them.

    `sheets`: where to draw contact sheets of the generators, if anywhere. Raises if a network misses its gate.
    """
    unknown = set(only) - {recipe.name for recipe in family.recipes}
    if unknown:
        raise ValueError(f"no recipe named {sorted(unknown)} in family {family.name}")
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    family.directory.mkdir(parents=True, exist_ok=True)
    present = read_manifest(family.manifest)
    keys = [family.key(recipe) for recipe in family.recipes]
    entries = {key: present[key] for key in keys if key in present}
    with progress_bar() as progress:
        for recipe in family.recipes:
            if only and recipe.name not in only:
                continue
            if is_current(entries.get(family.key(recipe)), family.file(recipe), fingerprint(recipe)):
                progress.console.print(f"{family.key(recipe)}: kept, made by this recipe")
                continue
            rounds = 2 if isinstance(recipe, DistilledRecipe) else 1
            task = progress.add_task(family.key(recipe), total=rounds * recipe.epochs)
            entries[family.key(recipe)] = make_network(family, recipe, lambda task=task: progress.advance(task))
            record(family.manifest, entries)
        made = [recipe for recipe in family.recipes if not only or recipe.name in only]
        if family.make_judge is not None and any(isinstance(recipe, AnyGenerator) for recipe in made):
            task = progress.add_task(f"{family.name}: independent judge", total=family.judge_epochs)
            judge = family.make_judge(lambda: progress.advance(task))
            judge_generators(family, entries, judge)
    record(family.manifest, entries)
    if sheets is not None:
        draw_sheets(family, sheets)
    require_gates(family, entries)


def progress_bar() -> Progress:
    """A bar on stderr with the epochs done, the time spent and the time left."""
    columns = (BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    return Progress(TextColumn("{task.description}"), *columns, console=Console(stderr=True))


def make_network(family: Family, recipe: Recipe, step: Step) -> dict:
    """Train and export one network; its manifest entry, for a generator still without the judges' shares."""
    start = time.monotonic()
    if isinstance(recipe, AnyGenerator):
        train = train_gan if isinstance(recipe, GanRecipe) else train_generator
        network = train(recipe, torch.from_numpy(family.data.of_class(recipe.label)), step)
        inputs = latents(recipe.latent)
    else:
        pictures, labels = torch.from_numpy(family.data.train_x), torch.from_numpy(family.data.train_y)
        special = {AdversarialRecipe: train_adversarially, DistilledRecipe: train_distilled}
        network = special.get(type(recipe), train_classifier)(recipe, pictures, labels, step)
        inputs = torch.from_numpy(family.data.test_x)
    path = family.file(recipe)
    export(network, path, inputs=recipe.sizes[0], input_name="z" if isinstance(recipe, AnyGenerator) else "x")
    check_export(network, path, inputs)
    return describe(family, recipe, network, time.monotonic() - start)


def latents(size: int) -> torch.Tensor:
    """The fixed sample z ~ N(0, I) on which generators are judged: `(SAMPLES, size)`, float32."""
    random = torch.Generator().manual_seed(SAMPLE_SEED)
    return torch.randn(SAMPLES, size, generator=random, dtype=torch.float32)


def describe(family: Family, recipe: Recipe, network: nn.Sequential, seconds: float) -> dict:
    """The manifest entry of a network that was just exported."""
    path = family.file(recipe)
    generator = isinstance(recipe, AnyGenerator)
    entry = {
        "path": family.key(recipe),
        "sha256": sha256(path),
        "bytes": path.stat().st_size,
        "role": "generator" if generator else "classifier",
        "class": recipe.label if generator else None,
        "input": {"name": "z" if generator else "x", "shape": ["batch", recipe.sizes[0]]},
        "output": {"name": "y", "shape": ["batch", recipe.sizes[-1]]},
        "architecture": recipe.architecture,
        "parameters": sum(parameter.numel() for parameter in network.parameters()),
        "dataset": {
            "name": family.name,
            "sha256": family.data.sha256,
            "preprocessing": family.data.preprocessing,
        },
        "prior": "N(0, I)" if generator else None,
        "command": f"{family.command} --only {recipe.name}",
        "seed": recipe.seed,
        "seconds": round(seconds, 1),
        "recipe": {"fingerprint": fingerprint(recipe), **json.loads(json.dumps(asdict(recipe)))},
        "versions": library_versions(),
    }
    if not generator:
        predicted = run_onnx(path, family.data.test_x).argmax(1)
        entry["test_accuracy"] = round(float(np.mean(predicted == family.data.test_y)), 4)
    return entry


def drawn_pictures(family: Family, recipe: AnyGenerator, count: int) -> np.ndarray:
    """What the generator makes of the first fixed latents, scaled to [0, 1]: `(count, pixels)`, float32."""
    low, high = recipe.range
    values = run_onnx(family.file(recipe), latents(recipe.latent).numpy()[:count])
    return (values - np.float32(low)) / np.float32(high - low)


def judge_generators(family: Family, entries: dict[str, dict], judge: Judge) -> None:
    """Record in `entries` which share of each generator's samples every classifier takes for its class."""
    shipped = [r for r in family.recipes if isinstance(r, PictureRecipe) and family.key(r) in entries]
    for recipe in family.recipes:
        if not isinstance(recipe, AnyGenerator) or family.key(recipe) not in entries:
            continue
        pictures = drawn_pictures(family, recipe, SAMPLES)
        shares = {r.name: float(np.mean(run_onnx(family.file(r), pictures).argmax(1) == recipe.label)) for r in shipped}
        entries[family.key(recipe)]["recognised"] = {
            "samples": SAMPLES,
            "seed": SAMPLE_SEED,
            "independent": {
                "classifier": judge.name,
                "test_accuracy": round(judge.test_accuracy, 4),
                "share": round(judge.share(pictures, recipe.label), 4),
            },
            "shipped": {name: round(share, 4) for name, share in shares.items()},
            "pixel_deviation": round(float(pictures.std(0).mean()), 4),
            "pixel_deviation_of_data": round(float(family.data.of_class(recipe.label).std(0).mean()), 4),
        }


def draw_sheets(family: Family, sheets: Path) -> None:
    """One PNG per generator: generated pictures above, data below."""
    sheets.mkdir(parents=True, exist_ok=True)
    for recipe in family.recipes:
        if isinstance(recipe, AnyGenerator) and family.file(recipe).exists():
            count = SHEET_ROWS * SHEET_COLUMNS
            drawn = drawn_pictures(family, recipe, count)
            data = family.data.of_class(recipe.label)[: 2 * SHEET_COLUMNS]
            target = sheets / f"{family.name}_{recipe.name}.png"
            contact_sheet(np.concatenate([drawn, data]), SHEET_COLUMNS, SHEET_ROWS, target)


def require_gates(family: Family, entries: dict[str, dict]) -> None:
    """Raise, naming every network of the family that misses its gate."""
    poor = []
    for recipe in family.recipes:
        entry = entries.get(family.key(recipe), {})
        robust = isinstance(recipe, AdversarialRecipe | DistilledRecipe)
        required = family.required_robust_accuracy if robust else family.required_accuracy
        if "test_accuracy" in entry and entry["test_accuracy"] < required:
            poor.append(f"{entry['path']}: test accuracy {entry['test_accuracy']} < {required}")
        if "recognised" in entry and entry["recognised"]["independent"]["share"] < family.required_share:
            share = entry["recognised"]["independent"]["share"]
            poor.append(f"{entry['path']}: recognised {share} < {family.required_share}")
    if poor:
        raise RuntimeError("; ".join(poor))
