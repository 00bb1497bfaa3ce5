"""How sure the classifier is of the own class on what a generator produces, and how well people recognise it.

In: labelled samples; a table of people's grades. Out: shares with exact bounds. Trust: sound at the stated confidence
for the shares; a confidence is the float64 softmax of the scores.

Fijalkow & Gupta 2019, section 4: the shares above .9, .97 and .99, and 100 pictures graded by five people. What people
do not recognise as the class is no picture of it: a claim with a delta below that share says more about the classifier
than the generator's pictures can tell.
"""

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from formalgr.core.errors import InputError
from formalgr.experiments.labelled import Labelled
from formalgr.global_robustness.binomial import lower_bound, upper_bound

LEVELS = (0.9, 0.97, 0.99)
SHEET = 100
GRADERS = 5
RECOGNISED = 2.0
"""Grades: 3 clear, 2 recognisable, 1 doubtful, 0 not recognisable; a median of at least this counts as recognised."""


@dataclass(frozen=True)
class Share:
    """`count` of `samples`, with Clopper-Pearson bounds of the probability, each at confidence 1 - alpha."""

    count: int
    samples: int
    lower: float
    upper: float

    def to_json(self) -> dict:
        """Plain values."""
        return {"count": self.count, "samples": self.samples, "lower": self.lower, "upper": self.upper}


def share(count: int, samples: int, alpha: float) -> Share:
    """The share `count` of `samples` with its bounds."""
    return Share(count, samples, lower_bound(count, samples, alpha), upper_bound(count, samples, alpha))


def above_levels(one: Labelled, alpha: float) -> tuple[Share, ...]:
    """For each of LEVELS the share of the samples whose confidence in the own class exceeds it."""
    return tuple(share(int(np.sum(one.confidences > level)), len(one), alpha) for level in LEVELS)


def sheet(samples: Sequence[Labelled], number: int = SHEET) -> list[tuple[int, int]]:
    """(class position, sample index) of up to `number` samples, the classes taking turns."""
    order = [(k, index) for index in range(max(map(len, samples))) for k in range(len(samples))]
    return [(k, index) for k, index in order if index < len(samples[k])][:number]


def grades_form(samples: Sequence[Labelled], chosen: Sequence[tuple[int, int]]) -> str:
    """A CSV to fill in: one row a picture of the sheet, one empty column a person."""
    people = ",".join(f"grade_{k + 1}" for k in range(GRADERS))
    rows = [f"{n},{samples[k].label},{index}{',' * GRADERS}" for n, (k, index) in enumerate(chosen, start=1)]
    return "\n".join([f"number,class,index,{people}", *rows]) + "\n"


def unrecognised(path: Path, alpha: float) -> Share:
    """The share of graded pictures whose median grade is below RECOGNISED: the floor of a meaningful delta.

    Pictures without a grade are not counted. Raises InputError for a file that is no filled-in form.
    """
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or 'not text'})") from None
    if not rows or "number" not in rows[0]:
        raise InputError(f"{path}: not a table of grades; fill in the grades.csv that this experiment writes")
    medians = []
    for line, row in enumerate(rows, start=2):
        written = [value.strip() for key, value in row.items() if (key or "").startswith("grade_") and value]
        grades = [float(value) for value in written if value in ("0", "1", "2", "3")]
        if len(grades) < len([value for value in written if value]):
            raise InputError(f"{path}, line {line}: grades are 0, 1, 2 or 3, got {', '.join(written)}")
        if grades:
            medians.append(float(np.median(grades)))
    if not medians:
        raise InputError(f"{path}: no picture has a grade yet")
    return share(sum(median < RECOGNISED for median in medians), len(medians), alpha)
