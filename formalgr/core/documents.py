"""Values as JSON: a value knows that there is a document of it, report/documents.py says what stands in it.

In: values. Out: documents. Trust: sound (nothing decides here).
"""

from functools import singledispatch


@singledispatch
def document(value: object) -> dict:
    """The JSON document of a value, with the keys that the command line prints. Raises TypeError where there is none;
    `import formalgr.api` (or any public name of formalgr) makes those of results known.
    """
    raise TypeError(f"{type(value).__name__} has no JSON document")


class Documented:
    """A value with a JSON document."""

    def to_json(self) -> dict:
        """Plain values (no NaN, no infinity) under the keys that `--json` prints; what a value does not know, such as
        the command line, is empty.
        """
        return document(self)
