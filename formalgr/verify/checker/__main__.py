"""`python -m formalgr.verify.checker CERTIFICATE MODEL.onnx`: 0 proven, 6 rejected, 3 unreadable, 2 usage.

In: two files. Out: what is proven, the exit code. Trust: sound.
"""

import gzip
import sys
from pathlib import Path

from formalgr.verify.checker import Checker, Rejected, Unreadable


def main(argv: list[str]) -> int:
    """Check one certificate."""
    if len(argv) != 2:
        sys.stderr.write("usage: python -m formalgr.verify.checker CERTIFICATE MODEL.onnx\n")
        return 2
    try:
        data, model = (Path(name).read_bytes() for name in argv)
        proven = Checker(gzip.decompress(model) if model[:2] == b"\x1f\x8b" else model).check(data)
    except Rejected as error:
        sys.stderr.write(f"rejected: {error}\n")
        return 6
    except (Unreadable, OSError) as error:
        sys.stderr.write(f"unreadable: {error}\n")
        return 3
    sys.stdout.write(f"valid: {proven.sentence}\nassumed: {proven.assumed}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
