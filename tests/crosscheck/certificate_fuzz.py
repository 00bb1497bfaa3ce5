"""Random edits of certificates, sealed again: what the checker accepts must be true by exact enumeration.

    python -m tests.crosscheck.certificate_fuzz [--seed S] [--edits N]
"""

import argparse
import sys

from tests.certificates import fuzz


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--edits", type=int, default=5000)
    args = parser.parse_args()
    tally = fuzz(args.seed, args.edits)
    print(f"seed {args.seed}: {tally.edits} edits, {tally.accepted} accepted, {tally.unknown} too large to judge")
    print(f"wrong: {tally.wrong or 'none'}")
    return 1 if tally.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
