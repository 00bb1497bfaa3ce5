"""The text of a property file as S-expressions whose places are known; shared by VNN-LIB 1.0 and 2.0.

In: a path or a text. Out: Source, Form, Word, PropertyError with line, column and caret. Trust: sound (no text is
skipped but blanks and comments; numbers are exact).
"""

import gzip
import hashlib
import io
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from formalgr.core.decimals import HUGE, MAX_DIGITS, MAX_EXPONENT
from formalgr.core.errors import InputError, PropertyError

TOKEN = re.compile(r';[^\r\n]*|"(?:[^"\\]|\\.)*"|[()\[\],]|[^\s()\[\],;"]+|"', re.DOTALL)
"""VNN-LIB 1.0; comments end at CR or LF (SMT-LIB 2.6, 3.1)."""
_BLANK = r"(?:\s|;[^\r\n]*+(?:[\r\n]|\Z))*+"
TOKEN2 = re.compile(
    r";[^\r\n]*"
    rf"|[A-Za-z]\w*(?:-[A-Za-z]\w*)*(?:{_BLANK}\[{_BLANK}(?:[0-9]+{_BLANK}(?:,{_BLANK}[0-9]+{_BLANK})*)?\])?"
    r"|-?[0-9.]+(?:[eE][+-]?[0-9]+)?"
    r'|[()]|<[0-9]+\.[0-9]+>|[<>=!]=|"(?:[^"\\]|\\.)*"|\S',
    re.DOTALL | re.ASCII,
)
"""VNN-LIB 2.0: a name takes the brackets behind it along, operators need no blanks around them."""
VERSIONED = re.compile(rf"{_BLANK}\({_BLANK}vnnlib-version\b")
"""How a source of VNN-LIB 2.0 begins."""
NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE]([+-]?[0-9]{1,6}))?")
LINE_BREAK = re.compile(r"\r\n|\r|\n")
MAX_DEPTH = 200
"""Deepest nesting of parentheses: keeps recursive readers far from Python's own limit of 1000 calls."""
MAX_BYTES = 2**28
"""Largest property file, uncompressed: ten times the largest of VNN-COMP; keeps a gzip bomb out of memory."""
EXCERPT = 100
"""Characters of the source line that an error shows."""


class Word(NamedTuple):
    """One token between blanks or parentheses: its text and its index among the tokens of the source."""

    text: str
    at: int


class Form(NamedTuple):
    """One pair of parentheses: what stands between them, and the token index of the opening one."""

    items: list
    at: int


def printable(text: str) -> str:
    """The text on one line without control characters, so that a file cannot steer the terminal that shows it."""
    return "".join(c if c.isprintable() else " " if c in "\t\r\n" else "?" for c in text)


def shown(item: Word | Form) -> str:
    """How an error names an item: a word in back quotes, cut to 40 characters; parentheses as `(...)`."""
    if isinstance(item, Form):
        return "`(...)`"
    return f"`{printable(item.text[:40])}{'...' if len(item.text) > 40 else ''}`"


def placed(name: str, text: str, offset: int, what: str) -> PropertyError:
    """The error `name:line:column: what`, then the source line and a caret under the character at `offset`."""
    start, line = 0, 1
    for match in LINE_BREAK.finditer(text, 0, offset):
        start, line = match.end(), line + 1
    end = LINE_BREAK.search(text, start)
    whole = text[start : end.start() if end else len(text)]
    column = offset - start
    left = max(0, min(column - EXCERPT // 2, len(whole) - EXCERPT))
    excerpt = printable(whole[left : left + EXCERPT])
    head, tail = "..." if left else "", "..." if left + EXCERPT < len(whole) else ""
    caret = " " * (len(head) + column - left) + "^"
    return PropertyError(f"{printable(name)}:{line}:{column + 1}: {what}\n{head}{excerpt}{tail}\n{caret}")


@dataclass(frozen=True)
class Source:
    """The text of a property file with the name that errors give it and the SHA-256 of its uncompressed bytes."""

    name: str
    text: str
    sha256: str

    @cached_property
    def versioned(self) -> bool:
        """Whether the source begins with (vnnlib-version ...), as VNN-LIB 2.0 does and 1.0 does not."""
        return VERSIONED.match(self.text) is not None

    @property
    def _token(self) -> re.Pattern:
        return TOKEN2 if self.versioned else TOKEN

    @cached_property
    def tokens(self) -> list[str]:
        """Every token in order, comments among them; offsets are found again only when an error needs one."""
        return self._token.findall(self.text)

    def error(self, at: int, what: str) -> PropertyError:
        """The error `what` with its caret under token number `at` (under the start of the text when there is none)."""
        match = next(islice(self._token.finditer(self.text), at, None), None)
        return placed(self.name, self.text, match.start() if match else 0, what)

    def forms(self) -> Iterator[Form]:
        """The top-level forms in order. Raises PropertyError where parentheses do not match or nest too deeply."""
        stack: list[Form] = []
        for at, text in enumerate(self.tokens):
            if text == "(":
                if len(stack) == MAX_DEPTH:
                    raise self.error(at, f"parentheses nest deeper than {MAX_DEPTH}; flatten nested and, or, + or *")
                stack.append(Form([], at))
            elif text == ")":
                if not stack:
                    raise self.error(at, "`)` closes nothing; remove it or open a `(` before it")
                form = stack.pop()
                if stack:
                    stack[-1].items.append(form)
                else:
                    yield form
            elif text[0] != ";":
                if not stack:
                    raise self.error(at, f"{shown(Word(text, at))} stands outside parentheses; write (command ...)")
                stack[-1].items.append(Word(text, at))
        if stack:
            raise self.error(stack[0].at, "`(` is never closed; add the missing `)`")

    def number(self, word: Word) -> Fraction | None:
        """The exact value of a decimal such as -1.5e-07; None when the word is no number.

        Raises PropertyError when it is too long to be meant, or larger than every float64.
        """
        match = NUMBER.fullmatch(word.text)
        if match is None:
            return None
        if len(word.text) > MAX_DIGITS or abs(int(match.group(1) or 0)) > MAX_EXPONENT:
            limits = f"{MAX_DIGITS} characters or a power of ten beyond {MAX_EXPONENT}"
            raise self.error(word.at, f"number {shown(word)} has more than {limits}; round it")
        value = Fraction(word.text)
        if (match.group(1) or len(word.text) > 300) and abs(value) > HUGE:
            raise self.error(word.at, f"number {shown(word)} is outside the range of float64; use a smaller one")
        return value


def text_source(text: str, name: str) -> Source:
    """A source from a text; the SHA-256 is that of its UTF-8 bytes."""
    sha256 = hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()
    return Source(name, text.removeprefix("\ufeff"), sha256)


def file_source(path: str | Path) -> Source:
    """A source from a file, plain or gzip, in UTF-8; the SHA-256 is that of the uncompressed bytes.

    Raises InputError when the file cannot be opened, PropertyError when its bytes are no text.
    """
    name = str(path)
    content = _uncompressed(name, _bytes_of(name))
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        before = content[: error.start].decode("utf-8")
        wrong = f"byte 0x{content[error.start]:02x} is not UTF-8; save the property as plain UTF-8 text"
        raise placed(name, content.decode("utf-8", "replace"), len(before), wrong) from None
    return Source(name, text.removeprefix("\ufeff"), hashlib.sha256(content).hexdigest())


def _bytes_of(name: str) -> bytes:
    """The bytes of a file, one more than MAX_BYTES at most. Raises InputError with the system's reason."""
    try:
        with open(name, "rb") as file:
            return file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise InputError(f"{printable(name)}: no such file; check the path of the property") from None
    except IsADirectoryError:
        raise InputError(f"{printable(name)}: is a directory; name one property file in it") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{printable(name)}: cannot be read ({getattr(error, 'strerror', None) or error})") from None


def _uncompressed(name: str, content: bytes) -> bytes:
    """The bytes themselves, or what gzip packed into them (told by its first two bytes, not by the file's name)."""
    if content[:2] == b"\x1f\x8b":
        try:
            with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
                content = file.read(MAX_BYTES + 1)
        except (OSError, EOFError, zlib.error) as error:
            raise PropertyError(f"{printable(name)}: corrupt gzip file ({error}); fetch it again") from None
    elif name.endswith(".gz"):
        raise PropertyError(f"{printable(name)}: not a gzip file; drop .gz from its name or fetch it again")
    if len(content) > MAX_BYTES:
        raise PropertyError(f"{printable(name)}: larger than {MAX_BYTES >> 20} MiB uncompressed; is it a property?")
    return content
