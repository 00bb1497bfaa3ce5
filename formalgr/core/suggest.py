"""What an unknown word was meant to be.

In: a word, the words that are known. Out: text for the end of an error. Trust: heuristic (it decides nothing).
"""

import difflib
from collections.abc import Collection


def did_you_mean(word: str, known: Collection[str]) -> str:
    """`; did you mean X?` when something resembles the word, else nothing."""
    close = [name for name in known if len(word) > 3 and name.startswith(word)]
    close = close or difflib.get_close_matches(word, known, n=1, cutoff=0.6)
    return f"; did you mean {close[0]}?" if close else ""
