"""Rewrites the tables of docs/benchmarks.md from the files in benchmarks/results: `python -m benchmarks.tables`."""

import json
import re
import statistics
import sys
from collections.abc import Callable, Iterable
from pathlib import Path

from benchmarks.measuring import RESULTS, ROOT

PAGE = ROOT / "docs" / "benchmarks.md"
SLOWEST = 10
AXES = {"eps": " at eps {}", "latent": ", latent {}", "units": ", {} units", "batch": ", {} a call"}


def grid(header: str, rows: Iterable[Iterable]) -> str:
    """A Markdown table; columns are separated by | in `header`."""
    lines = [header.split("|"), ["---"] * len(header.split("|")), *rows]
    return "\n".join("| " + " | ".join(str(cell).strip() for cell in line) + " |" for line in lines)


def number(value: float) -> str:
    """Three significant digits, without exponent."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def provenance(result: dict) -> str:
    """Where the numbers of a file come from, as a sentence."""
    rates, rate = result.get("matmul_gflops"), ""
    if isinstance(rates, dict):
        rate = f", matmul {number(rates['before'])} GFLOP/s before, {number(rates['after'])} after"
    where = f"commit {result['commit'][:10]}, {result['date'][:10]}, load {number(result['machine']['load'][0])}"
    return f"`{result['command']}`, {where} on {result['machine']['cores']} cores{rate}."


def compare_marabou(result: dict) -> str:
    """Medians (means) in CPU milliseconds, and ratios."""
    peers = ("marabou", "formalgr")

    def line(row: dict) -> list[str]:
        late = "> " if "timeout" in row["marabou_verdicts"] else ""
        words = [", ".join(f"{n} {word}" for word, n in row[f"{who}_verdicts"].items()) for who in peers]
        if "ratio_median" not in row:
            return [row["group"], *words, *["-"] * 5]
        both = [pair(1e3 * row[f"{who}_median"], 1e3 * row[f"{who}_mean"]) for who in peers]
        alone, batch = late + pair(row["ratio_median"], row["ratio_mean"]), ["-", "-"]
        if "batch_per_query" in row:
            ratio = late + pair(row["batch_ratio_median"], row["batch_ratio_mean"])
            batch = [number(1e3 * row["batch_per_query"]), ratio]
        return [row["group"], *words, late + both[0], both[1], alone, *batch]

    header = "instances | Marabou | formalgr | Marabou, ms | alone, ms | ratio | in a batch of 1000, ms | ratio"
    fresh = [statistics.median(row[who]["cpu_seconds"] for row in result["start_up_included"]) for who in peers]
    told = f"Start-up included: median {number(fresh[0])} s (Marabou), {number(fresh[1])} s (formalgr)."
    wrong = "; ".join(result["disagreements"]) or "none"
    return f"Disagreements: {wrong}.\n\n{grid(header, map(line, result['summary']))}\n\n{told}"


def pair(median: float, mean: float) -> str:
    """Median and, where it is another, mean in brackets."""
    one, other = number(median), number(mean)
    return one if one == other else f"{one} ({other})"


def acasxu(result: dict) -> str:
    """Summary by group, then the slowest instances."""
    keys = ("instances", "decided", "wrong", "median_cpu_seconds", "sum_cpu_seconds", "largest_cpu_seconds")
    header = "group | instances | decided | wrong | median, s | sum, s | largest, s"
    groups = [[group["group"], *(number(group[key]) for key in keys)] for group in result["summary"]]
    slow = sorted(result["rows"], key=lambda row: -row["cpu_seconds"])[:SLOWEST]
    told = ("network", "property", "verdict", "expected", "stage")
    rows = [[*(row[key] for key in told), number(row["cpu_seconds"]), row["boxes"]] for row in slow]
    slowest = grid("network | property | verdict | expected | stage | CPU s | boxes", rows)
    return f"{grid(header, groups)}\n\nThe slowest:\n\n{slowest}"


def growth(result: dict) -> str:
    """Every point."""
    header = "axis | series | at | n | unknown | checks/s | alone, /s | MFLOP | floor | x floor | padding | products"
    keys = ("checks_per_second", "alone_per_second", "megaflop_per_check", "floor_per_second", "times_floor")

    def line(row: dict) -> list:
        place = [row["axis"], row["series"], f"{row['x']:g}", row["queries"], row["unknown"]]
        shares = [f"{row['batch_operations']:.2f}", f"{row['products_share']:.0%}"]
        return [*place, *(number(row[key]) for key in keys), *shares]

    def told(row: dict) -> str:
        label = AXES[row["axis"]].format(f"{row['x']:g}")
        return f"{row['series']}{label} ({number(row['times_floor'])} times)"

    rows = sorted(result["rows"], key=lambda row: row["times_floor"])
    near = [told(row) for row in rows if row["times_floor"] <= 2.0]
    ends = f"Nearest: {'; '.join(map(told, rows[:5]))}. Farthest: {'; '.join(map(told, rows[:-4:-1]))}."
    found = f"Within twice the floor: {'; '.join(near) or f'none of {len(rows)} points'}.\n{ends}"
    return f"{found}\n\n{grid(header, map(line, result['rows']))}"


def local_checks(result: dict) -> str:
    """Every row."""
    header = "network | eps | samples | robust | violated | unknown | checks/s | median ms"
    keys = ("network", "epsilon", "samples", "holds", "violated", "unknown")
    numbers = ("checks_per_second", "median_ms")
    return grid(header, ([*(row[k] for k in keys), *(number(row[k]) for k in numbers)] for row in result["rows"]))


def wide_checks(result: dict) -> str:
    """Every row, and the floor of forward bounds."""
    header = "eps | samples | bounds | robust | violated | open | share robust | checks/CPU s"
    keys = ("epsilon", "samples", "mode", "holds", "violated", "unknown")

    def line(row: dict) -> list:
        share = f"{row['holds'] / row['samples']:.0%}"
        return [*(row[key] for key in keys), share, number(row["checks_per_cpu_second"])]

    floor = f"Floor of forward bounds: {number(1.0 / result['forward_floor_seconds'])} checks/s."
    return f"{grid(header, map(line, result['rows']))}\n\n{floor}"


def sweeps(result: dict) -> str:
    """A line a family, then what is undecided and why."""
    header = "family | decided | wrong | median, s | median CPU, s | best published median, s"
    keys = ("median_seconds", "median_processor_seconds", "median_best_published")
    rows = [
        [row["family"], f"{row['decided']}/{row['total']}", row["wrong"], *(f"{row[key]:.2f}" for key in keys)]
        for row in result["rows"]
    ]
    undecided = [
        [Path(one["onnx"]).name, Path(one["vnnlib"]).name, one["expected"], one["why"]]
        for row in result["rows"]
        for one in row["undecided"]
    ]
    return f"{grid(header, rows)}\n\nUndecided:\n\n{grid('network | property | expected | why', undecided)}"


def global_runs(result: dict) -> str:
    """Every row."""
    header = "part | classifier | eps | samples | decided (closed) | verdict | s | CPU s | samples/CPU s | goal, s"

    def line(row: dict) -> list:
        places = [row["part"], row["classifier"], f"{row['epsilon']:g}", row["samples"], row["done"]]
        rate = number(row["samples"] / row["cpu_seconds"])
        goal = "-" if row["goal_seconds"] is None else f"{row['goal_seconds']:g}"
        times = number(row["seconds"]), number(row["cpu_seconds"])
        return [*places, row.get("verdict", "-"), *times, rate, goal]

    return grid(header, map(line, result["rows"]))


def certificates(result: dict) -> str:
    """What writing costs and how fast checking is; then instances: how many have a certificate that was accepted."""
    parts = {name: [row for row in result["rows"] if row["part"] == name] for name in ("digits", "acasxu", "fpsound")}
    header = "network | robust | violated | certificates | overhead | checked/s | median bytes | largest"
    keys = ("holds", "violated", "certificates")
    numbers = ("checked_per_cpu_second", "median_bytes", "largest_bytes")
    cost = grid(header, ([r["name"], *(r[k] for k in keys), f"{r['overhead']:.0%}", *(number(r[k]) for k in numbers)]
                         for r in parts["digits"]))
    chosen = [row for row in result["rows"] if row["part"] == "cells" or row["name"] in ("1_1:3", "1_1:4")]
    single = grid("instance | verdict | accepted | leaves | bytes | solved, s | certified, s | checked, s", (
        [r["name"], r["verdict"], _accepted(r), r["leaves"], r["bytes"], *map(number, _spent(r))] for r in chosen))
    numbered = {k: [row for row in parts["acasxu"] if row["name"].endswith(f":{k}")] for k in range(1, 11)}
    groups = {f"ACAS Xu, property {k}": rows for k, rows in numbered.items()}
    groups["fpsound"] = parts["fpsound"]
    header = "instances | measured | sat | unsat | accepted | median bytes | solved, s | certified, s | checked, s"
    many = grid(header, ([name, *_summary(rows)] for name, rows in groups.items() if rows))
    listed = ", ".join(row["name"] for row in parts["acasxu"] if row["checked"] is True)
    missed = ", ".join(f"{row['name']} ({row['verdict']})" for row in result["rows"] if row.get("checked") is False)
    told = f"ACAS Xu with an accepted certificate (network:property): {listed}."
    return "\n\n".join([cost, single, many, told, f"Measured, without a certificate: {missed or 'none'}."])


def _accepted(row: dict) -> str:
    return {True: "yes", False: "no certificate"}.get(row["checked"], row["checked"])


def _spent(row: dict) -> list[float]:
    return [row[f"{what}_cpu_seconds"] for what in ("solve", "certify", "check")]


def _summary(rows: list[dict]) -> list:
    """Counts, and medians over the accepted ones."""
    good = [row for row in rows if row["checked"] is True]
    counts = [sum(row["verdict"] == word for row in rows) for word in ("sat", "unsat")]
    medians = [statistics.median(values) for values in zip(*map(_spent, good), strict=True)]
    size = statistics.median(row["bytes"] for row in good) if good else 0
    return [len(rows), *counts, len(good), number(size), *map(number, medians or [0.0] * 3)]


def experiments(result: dict) -> str:
    """Every row."""
    header = "command | s | CPU s | goal, s | adversarial pairs"

    def line(row: dict) -> list:
        times = number(row["seconds"]), number(row["cpu_seconds"]), number(row["goal_seconds"])
        return [f"`{row['command']}`", *times, row.get("pairs_replayed", "-")]

    return grid(header, map(line, result["rows"]))


TABLES: dict[str, Callable[[dict], str]] = {
    "compare_marabou": compare_marabou,
    "acasxu": acasxu,
    "growth": growth,
    "local_checks": local_checks,
    "wide_checks": wide_checks,
    "sweeps": sweeps,
    "global_runs": global_runs,
    "certificates": certificates,
    "experiments": experiments,
}


def updated(page: str) -> str:
    """The page with every table made anew between its markers <!-- table NAME --> and <!-- end -->."""

    def table(match: re.Match) -> str:
        name = match.group(1)
        result = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
        return f"<!-- table {name} -->\n{provenance(result)}\n\n{TABLES[name](result)}\n<!-- end -->"

    return re.sub(r"<!-- table (\w+) -->\n.*?<!-- end -->", table, page, flags=re.DOTALL)


def main() -> int:
    PAGE.write_text(updated(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
