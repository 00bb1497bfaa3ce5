"""results.csv as VNN-COMP's scorer reads it.

In: rows of a sweep. Out: text. Trust: sound (it repeats what was decided).

The file has no header; a line is category, network, property, seconds of preparation, result, seconds of the run.
"""

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from formalgr.report.sweep import Row


def results_csv(rows: Sequence[Row], category: str) -> str:
    """results.csv: preparing costs nothing, since files are read within the run."""
    stream = io.StringIO()
    writer = csv.writer(stream, lineterminator="\n")
    for row in rows:
        names = (row.instance.onnx, row.instance.vnnlib)
        writer.writerow([category, *names, "0.000", row.word, f"{row.record.seconds:.3f}"])
    return stream.getvalue()


def category_of(place: Path) -> str:
    """The category of a list of instances: the name of its folder, or of the list where that says nothing."""
    folder = place.resolve().parent.name
    return folder if place.name.split(".")[0] == "instances" and folder else place.name.split(".")[0]
