"""`python -m formalgr.verify.checker CERTIFICATE MODEL.onnx`: 0 proven, 6 rejected, 3 unreadable, 2 usage.

In: two files. Out: what is proven, the exit code. Trust: sound.
"""

import gzip
import sys
import zlib

from formalgr.verify.checker import Checker, Rejected, Unreadable

LARGEST = (1 << 31) - 1  # bytes of a model; what follows in a file is not read


def main(argv: list[str]) -> int:
    """Check one certificate."""
    if len(argv) != 2:
        sys.stderr.write("usage: python -m formalgr.verify.checker CERTIFICATE MODEL.onnx\n")
        return 2
    try:
        proven = Checker(_bytes(argv[1])).check(_bytes(argv[0]))
    except Rejected as error:
        sys.stderr.write(f"rejected: {error}\n")
        return 6
    except (Unreadable, OSError, ValueError, EOFError, zlib.error) as error:
        sys.stderr.write(f"unreadable: {error}\n")
        return 3
    sys.stdout.write(f"valid: {proven.sentence}\nassumed: {proven.assumed}\n")
    return 0


def _bytes(name: str) -> bytes:
    """What a file holds, unpacked where it is a gzip file."""
    with open(name, "rb") as file:
        packed = file.peek(2)[:2] == b"\x1f\x8b"
        return (gzip.open(file) if packed else file).read(LARGEST)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
