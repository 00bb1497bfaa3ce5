"""Settings of all tests: hypothesis draws the same examples on every run: a suite that passes once passes always.

Fresh examples: `HYPOTHESIS_PROFILE=fresh python -m pytest`.
"""

import os
import signal

from hypothesis import settings

settings.register_profile("fixed", derandomize=True, database=None, deadline=None)
settings.register_profile("fresh", deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "fixed"))

# a shell starts its background jobs deaf to Ctrl-C, and their children would be too: tests of Ctrl-C need to hear it
signal.signal(signal.SIGINT, signal.default_int_handler)
