"""`python -m formalgr`: the command line.

In: sys.argv. Out: the exit code. Trust: as the commands.
"""

import sys

from formalgr.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
