"""The study of record: the source papers' experiments on MNIST and Fashion-MNIST, in one command that can be resumed.

    python -m benchmarks.study --data DATA --out DIR [--networks DIR] [--scale 1.0] [--limit 3600]

Every piece is a `formalgr` command with a folder of its own in DIR; pieces that are there already, made by the same
command from the same networks, are kept with their commit. Networks that are not shipped are taken from --networks;
pieces without theirs are left out, by name. Writes benchmarks/results/study-SET.json, docs/results.md and its pictures.
--scale 0.1 takes a tenth of the samples for attacks, balls and frontiers.
"""

import argparse
import json
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

from benchmarks.measuring import RESULTS, ROOT, Stopwatch, commit, document, write
from benchmarks.study_page import page, pictures
from networks.training.manifest import sha256

SETS = ("mnist", "fashion_mnist")
EIGHT = ("c_standard_small", "c_standard_medium", "c_standard_large", "c_augmented_small", "c_augmented_medium",
         "c_augmented_large", "c_adversarial", "c_distilled")
CLASS = "8"
"""The paper's class."""

EPSILON, DELTA = "0.02", "0.1"
"""Of the certified claim, Def. 3."""


@dataclass(frozen=True)
class Piece:
    """One command; `item` is the row of the published work that it answers, `needs` the networks it reads."""

    name: str
    item: str
    words: tuple[str, ...]
    needs: tuple[Path, ...]


@dataclass(frozen=True)
class Networks:
    """Where the networks of one data set are: those of --networks first, then the shipped ones."""

    dataset: str
    folders: tuple[Path, ...]

    def file(self, name: str) -> Path:
        """The file of a network, which need not exist; {class} may stand in its name."""
        places = [folder / self.dataset / f"{name}.onnx" for folder in self.folders]
        return next((place for place in places if Path(str(place).replace("{class}", CLASS)).is_file()), places[-1])

    def classes(self, name: str) -> tuple[str, ...]:
        """The classes that have a generator of that name."""
        pattern = str(self.file(name))
        return tuple(str(k) for k in range(10) if Path(pattern.replace("{class}", str(k))).is_file())


@dataclass(frozen=True)
class Makers:
    """Generators of one kind: `prefix` of the pieces' names, `one` that makes the paper's class, what lies between it
    and a classifier, and what does when that is forgotten; the names of those of the table and of the halves.
    """

    prefix: str
    one: str
    between: str | None
    forgotten: str
    table: tuple[str, str]
    halves: str
    certified: int


PAPER = Makers("gan ", "gan_8", "range:-1,1->0,1", "none", ("gan_{class}", "gan_augmented_{class}"), "gan_half", 20)
"""The paper's own: pictures in [-1, 1], its sizes."""

CLIPPED = Makers("", "g_8_full", None, "range:0,1->-1,1", ("g_{class}", "g_augmented_{class}"), "half", 500)
"""Pictures in [0, 1], piecewise linear; the table's are smaller."""


def pieces(networks: Networks, data: Path, scale: float) -> list[Piece]:
    """The whole set for one data set; as many samples as published, for attacks and proofs `scale` times as many."""
    small, every = networks.file("c_small"), networks.file("g_{class}")
    labels = ",".join(networks.classes("g_{class}")) or CLASS
    all_ = ("--generator", str(every), "--classifier", str(small), "--class", labels)
    claim = ("--epsilon", EPSILON, "--delta", DELTA)
    picked = ("--dataset", networks.dataset, "--data", str(data), "-n", "1000")
    found = [
        Piece("correctness", "A2", ("experiment", "correctness", *all_, "-n", "10000"), (small,)),
        Piece("outliers", "A9", ("experiment", "outliers", *all_, "-n", "10000"), (small,)),
        Piece("fgsm", "C5", ("experiment", "fgsm", "--classifier", str(small), *picked), (small,)),
        Piece("global", "A3", ("global", *all_, *claim), (small,)),
    ]
    for makers in (CLIPPED, PAPER):
        found += [*_of_one(networks, makers, scale), _table(networks, makers, data), _dependence(networks, makers)]
    frontier = ("--frontier", "--max-epsilon", "0.1", *_number(500, scale), "--per-sample-timeout", "2")
    found.append(Piece("frontier", "A3", ("global", *all_[:-1], CLASS, *claim, *frontier), (small,)))
    return found


def _number(samples: int, scale: float) -> tuple[str, str]:
    return "-n", str(max(20, round(samples * scale)))


def _of_one(networks: Networks, makers: Makers, scale: float) -> list[Piece]:
    """What is asked of one generator of the paper's class."""
    small, one = networks.file("c_small"), networks.file(makers.one)
    if makers is CLIPPED and not one.is_file():
        one = networks.file(f"g_{CLASS}")
    bare = ("--generator", str(one), "--classifier", str(small), "--class", CLASS)
    model = (*bare, "--between", makers.between) if makers.between else bare
    forgotten = (*bare, "--between", makers.forgotten)
    experiments = [
        ("correctness one", "A1", (*model, "-n", "10000")),
        ("correctness misscaled", "A1", (*forgotten, "-n", "10000")),
        ("walk", "A7", model),
        ("confidence", "A8", (*model, "-n", "10000")),
        ("outliers one", "A9", (*model, "-n", "10000")),
        ("continuity", "A4", (*model, *_number(50, scale), "--epsilon", "0.01,0.02,0.05")),
    ]
    found = [(name, item, ("experiment", name.split()[0], *words)) for name, item, words in experiments]
    for method, item in (("random", "A5"), ("pgd", "A6")):
        words = ("attack", "--method", method, *model, "--epsilon", "0.3", *_number(1000, scale))
        found.append((f"attack {method}", item, words))
    found.append(("global one", "A3", ("global", *model, "--epsilon", EPSILON, "--delta", DELTA)))
    return [Piece(makers.prefix + name, item, words, (small, one)) for name, item, words in found]


def _table(networks: Networks, makers: Makers, data: Path) -> Piece:
    classifiers = [networks.file(name) for name in EIGHT if networks.file(name).is_file()]
    sets = dict(zip(("standard generator", "augmented generator"), map(networks.file, makers.table), strict=True))
    if not networks.classes(makers.table[1]):
        del sets["augmented generator"]
    words = ["experiment", "table", "--class", CLASS, "--dataset", networks.dataset, "--data", str(data), "-n", "5000"]
    words += [word for file in classifiers for word in ("--classifier", str(file))]
    words += [word for name, file in sets.items() for word in ("--generators", f"{name}={file}")]
    words += [word for name in sets if makers.between for word in ("--between", f"{name}={makers.between}")]
    needs = [Path(str(file).replace("{class}", CLASS)) for file in (networks.file(EIGHT[0]), *sets.values())]
    words += ["--certified-samples", str(makers.certified), "--epsilon", EPSILON]
    return Piece(f"{makers.prefix}table", "A10", tuple(words), tuple(needs))


def _dependence(networks: Networks, makers: Makers) -> Piece:
    halves = [networks.file(f"{makers.halves}_{half}_{CLASS}") for half in "ab"]
    small = networks.file("c_small")
    words = ("--generator", str(halves[0]), "--other", str(halves[1]), "--classifier", str(small), "--class", CLASS)
    return Piece(
        f"{makers.prefix}dependence", "A11", ("experiment", "dependence", *words, "-n", "5000"), (small, *halves)
    )


def kept_as_it_is(kept: dict, piece: Piece, networks: Networks) -> bool:
    """Whether a record is of the same command on the same files, wherever they lay."""
    if [*map(_relative, kept["words"])] != [*map(_relative, piece.words)]:
        return False
    files = {networks.file(Path(one["path"]).stem): one["sha256"] for one in kept["found"]["inputs"]}
    return all(file.is_file() and sha256(file) == digest for file, digest in files.items())


def run(piece: Piece, networks: Networks, folder: Path, seconds: float) -> dict | None:
    """The record of a piece, kept where it is there already; None when it was not finished in time."""
    place, record = folder / piece.name.replace(" ", "_"), folder / f"{piece.name.replace(' ', '_')}.json"
    if record.is_file():
        kept = json.loads(record.read_text(encoding="utf-8"))
        if kept_as_it_is(kept, piece, networks):
            return kept
    if seconds <= 0:
        return None
    command = [sys.executable, "-m", "formalgr", *piece.words, "--json", "--quiet", "--out", str(place)]
    with Stopwatch() as watch:
        done = subprocess.run([*command, "--timeout", f"{seconds:.3f}"], stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        raise SystemExit(f"{piece.name} ended with code {done.returncode}: {' '.join(command)}")
    found = json.loads(done.stdout)
    if found.get("verdict") == "timeout" or found.get("left_out"):
        return None
    kept = {
        "piece": piece.name,
        "item": piece.item,
        "words": list(piece.words),
        "seconds": round(watch.seconds, 2),
        "cpu_seconds": round(watch.cpu_seconds, 2),
        "commit": commit(),
        "found": found,
    }
    record.write_text(json.dumps(kept), encoding="utf-8")
    return kept


def study(dataset: str, args: argparse.Namespace, ends: float) -> dict:
    """All pieces of one data set that have their networks and their time."""
    networks = Networks(dataset, (*([args.networks] if args.networks else []), ROOT / "networks"))
    folder, rows, left_out = args.out / dataset, [], []
    folder.mkdir(parents=True, exist_ok=True)
    for piece in pieces(networks, args.data, args.scale):
        missing = [file.name for file in piece.needs if not file.is_file()]
        kept = None if missing else run(piece, networks, folder, ends - time.monotonic())
        if kept is None:
            left_out.append({"piece": piece.name, "why": f"no {', '.join(missing)}" if missing else "out of time"})
            print(f"{dataset:14} {piece.name:22} left out: {left_out[-1]['why']}", flush=True)
            continue
        rows.append(kept)
        print(f"{dataset:14} {piece.name:22} {kept['seconds']:8.1f} s {kept['cpu_seconds']:8.1f} cpu s", flush=True)
    fewer = [name for name in EIGHT if not networks.file(name).is_file()]
    if fewer and any(row["piece"].endswith("table") for row in rows):
        left_out.append({"piece": f"{', '.join(fewer)} in the table", "why": "not trained here"})
    return {"rows": rows, "left_out": left_out}


def main() -> None:
    """Run, then write the results and the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--out", type=Path, required=True, help="folder of the pieces; the same one resumes")
    parser.add_argument("--networks", type=Path, help="folder of networks that are not shipped")
    parser.add_argument("--sets", nargs="+", choices=SETS, default=SETS, help="which data sets (default both)")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the samples for attacks and proofs (1)")
    parser.add_argument("--limit", type=float, default=3600.0, help="seconds for everything (default 3600)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of study-SET.json")
    parser.add_argument("--page", type=Path, default=ROOT / "docs" / "results.md", help="the page that is written")
    args = parser.parse_args()
    ends, documents = time.monotonic() + args.limit, {}
    for dataset in args.sets:
        found = study(dataset, args, ends)
        settings = {"scale": args.scale, "limit_seconds": args.limit}
        documents[dataset] = document("benchmarks.study", dataset=dataset, settings=settings, **found)
        shown = {**documents[dataset], "rows": [_shortened(row) for row in found["rows"]]}
        write(shown, args.results / f"study-{dataset}.json")
    copied = pictures(args.out, args.sets, args.page.parent / args.page.stem)
    args.page.write_text(page(documents, copied), encoding="utf-8")
    print(f"wrote {args.page}")


MOST = 64
"""Longest list that is kept in the results: the pieces' own files hold everything."""


def _shortened(row: dict) -> dict:
    """A record without long lists and without the folders of a machine."""

    def short(value):
        if isinstance(value, dict):
            return {key: short(item) for key, item in value.items() if key not in ("pictures", "argv", "versions")}
        if isinstance(value, list):
            return [short(item) for item in value] if len(value) <= MOST else f"{len(value)} values"
        return re.sub(r"(?:/[\w.-]+)+/(?=[\w.-])", "", value) if isinstance(value, str) else value

    return {**row, "words": [_relative(word) for word in row["words"]], "found": short(row["found"])}


def _relative(word: str) -> str:
    """A word of a command without the folders of a machine."""
    name, equals, rest = word.rpartition("=")
    return f"{name}{equals}{'/'.join(Path(rest).parts[-2:])}" if rest.startswith("/") else word


if __name__ == "__main__":
    main()
