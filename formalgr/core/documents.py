"""Values as JSON and HTML: a value knows that there is a document of it, report/ says what stands in it.

In: values. Out: documents. Trust: sound (nothing decides here).
"""

from functools import singledispatch


@singledispatch
def document(value: object) -> dict:
    """The JSON document of a value, with the keys that the command line prints. Raises TypeError where there is none;
    `import formalgr.api` (or any public name of formalgr) makes those of results known.
    """
    raise TypeError(f"{type(value).__name__} has no JSON document")


@singledispatch
def notebook(value: object) -> str:
    """What a notebook shows of a value, as HTML; known like documents."""
    raise TypeError(f"{type(value).__name__} has no HTML")


class Documented:
    """A value with a JSON document, which notebooks show as HTML."""

    def _repr_html_(self) -> str:
        return notebook(self)

    def to_json(self) -> dict:
        """Plain values (no NaN, no infinity) under the keys that `--json` prints; what a value does not know, such as
        the command line, is empty.
        """
        return document(self)
