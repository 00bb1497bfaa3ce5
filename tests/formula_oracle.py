"""VNN-LIB formulas evaluated at a point in exact fractions: a second, slow parser that shares no code with the reader.

In: the text of a property about one network, inputs, outputs. Out: whether all assertions hold. Trust: sound; what this
parser does not understand is Unclear, never a guess.
"""

import re
from collections.abc import Sequence
from fractions import Fraction
from itertools import product

TOKEN = re.compile(
    r"[()]|<[0-9.]+>|[<>=!]=|[<>=]|[A-Za-z][\w-]*(?:\s*\[[0-9,\s]*\])?|[-+]?[0-9.]+(?:[eE][+-]?[0-9]+)?|[+*-]|\S"
)


class Unclear(Exception):
    """The oracle cannot tell."""


def truth(text: str, x: Sequence[Fraction], y: Sequence[Fraction]) -> bool:
    """Whether every assertion of the text is true at inputs x and outputs y."""
    try:
        forms = _forms(TOKEN.findall(re.sub(r";[^\r\n]*", "", text)))
        point = {f"X_{k}": v for k, v in enumerate(x)} | {f"Y_{k}": v for k, v in enumerate(y)}
        for form in forms:
            if form[0] == "declare-network":
                point |= _elements(form, x, y)
        return all(_true(form[1], point) for form in forms if form[0] == "assert")
    except (IndexError, KeyError, ValueError, TypeError, RecursionError, ZeroDivisionError) as error:
        raise Unclear(type(error).__name__) from None


def _forms(tokens: list[str]) -> list:
    stack: list[list] = [[]]
    for token in tokens:
        if token == "(":
            stack.append([])
        elif token == ")":
            form = stack.pop()
            stack[-1].append(form)
        else:
            stack[-1].append(token)
    if len(stack) != 1:
        raise ValueError("parentheses")
    return stack[0]


def _elements(form: list, x: Sequence[Fraction], y: Sequence[Fraction]) -> dict[str, Fraction]:
    """Names such as X[0,1] of one network, row-major in the order of declaration."""
    found, rest = {}, {"declare-input": list(x), "declare-output": list(y)}
    for part in form[2:]:
        if part[0] in rest:
            name = part[1]
            words = "".join(part[3:] if len(part) > 3 else [])
            match = re.fullmatch(r"\[([0-9,\s]*)\]", words.replace(" ", "")) or re.search(r"\[([0-9,\s]*)\]$", part[2])
            sizes = [int(size) for size in match.group(1).split(",") if size.strip()]
            for index in product(*map(range, sizes)):
                found[f"{name}[{','.join(map(str, index))}]" if index else name] = rest[part[0]].pop(0)
    return found


def _value(term, point: dict[str, Fraction]) -> Fraction:
    if isinstance(term, str):
        name = re.sub(r"\s", "", term)
        return point[name] if name in point else Fraction(term)
    head, *parts = term
    values = [_value(part, point) for part in parts]
    if head == "+":
        return sum(values, Fraction(0))
    if head == "-":
        return -values[0] if len(values) == 1 else values[0] - sum(values[1:])
    if head != "*":
        raise ValueError(head)
    result = Fraction(1)
    for value in values:
        result *= value
    return result


def _true(form, point: dict[str, Fraction]) -> bool:
    head, *parts = form
    if head in ("and", "or"):
        return (all if head == "and" else any)([_true(part, point) for part in parts])
    left, right = (_value(part, point) for part in parts)
    signs = {"<=": left <= right, ">=": left >= right, "<": left < right, ">": left > right, "=": left == right}
    return {**signs, "==": left == right, "!=": left != right}[head]
