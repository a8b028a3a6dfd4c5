# SPDX-License-Identifier: Apache-2.0
"""Regular expressions of the allow-list: RE2's, as Go's plugin reads them, in Python's words.

Where both read an expression alike it stays as it is. Not understood: Unicode classes such as
\\pL, and flags amid an expression.
"""

from __future__ import annotations

#: The first and the last character of each range.
_CLASSES = {
    "alnum": "09AZaz",
    "alpha": "AZaz",
    "ascii": "\x00\x7f",
    "blank": "\t\t  ",
    "cntrl": "\x00\x1f\x7f\x7f",
    "digit": "09",
    "graph": "!~",
    "lower": "az",
    "print": " ~",
    "punct": "!/:@[`{~",
    "space": "\t\r  ",
    "upper": "AZ",
    "word": "09AZ__az",
    "xdigit": "09AFaf",
}
_LAST = 0x10FFFF


def matches(expression: str, text: str) -> bool:
    """True when the expression is found anywhere in the text.

    Raises ValueError for one that is not understood, saying why.
    """
    from libcni.boot import full_boot

    full_boot()
    import re
    import warnings

    translated = _translate(expression)
    try:
        with warnings.catch_warnings():
            # Of notations that Python may read otherwise one day ("[a--b]").
            warnings.simplefilter("ignore")
            return re.search(translated, text, re.ASCII) is not None
    except (re.error, OverflowError, RecursionError) as error:
        raise ValueError(str(error)) from None


def _translate(expression: str) -> str:
    parts = []
    position = 0
    while position < len(expression):
        character = expression[position]
        if character == "\\":
            part, position = _escape(expression, position)
        elif character == "[":
            part, position = _bracket(expression, position)
        else:
            # "{,5}" is text in RE2, and a repetition in Python.
            is_text = expression.startswith("{,", position)
            part, position = "\\{" if is_text else character, position + 1
        parts.append(part)
    return "".join(parts)


def _escape(expression: str, start: int) -> tuple[str, int]:
    """What stands for the backslash at `start` and what belongs to it, and where that ends."""
    kind = expression[start + 1 : start + 2]
    if kind == "Q":
        text, _, _ = expression[start + 2 :].partition("\\E")
        return _literally(text), start + 2 + len(text) + 2
    if kind == "z":
        return "\\Z", start + 2
    if kind in ("p", "P"):
        raise ValueError(f"Unicode classes (\\{kind}) are not supported")
    if expression.startswith("\\x{", start):
        end = expression.find("}", start)
        try:
            code = chr(int(expression[start + 3 : end], 16))
        except (ValueError, OverflowError):
            raise ValueError("\\x{ begins no character") from None
        return _literally(code), end + 1
    return expression[start : start + 2], start + 2


def _literally(text: str) -> str:
    return "".join([f"\\U{ord(character):08x}" for character in text])


def _bracket(expression: str, start: int) -> tuple[str, int]:
    """What stands for the class of characters that begins at `start`, and where it ends."""
    parts = ["["]
    position = start + 1
    if expression.startswith("^", position):
        parts.append("^")
        position += 1
    first = position
    while position < len(expression):
        character = expression[position]
        if character == "]" and position > first:
            return "".join(parts) + "]", position + 1
        end = expression.find(":]", position + 2)
        if expression.startswith("[:", position) and end >= 0:
            part, position = _named(expression[position + 2 : end]), end + 2
        elif character == "\\":
            part, position = _escape(expression, position)
        else:
            # Python warns that one day these may begin a set in a set, or part two.
            part, position = f"\\{character}" if character in "[]&~|" else character, position + 1
        parts.append(part)
    raise ValueError("missing closing ]")


def _named(name: str) -> str:
    """The ranges of [:name:], or those between them for [:^name:]."""
    found = _CLASSES.get(name.removeprefix("^"))
    if found is None:
        raise ValueError(f"there is no class [:{name}:]")
    codes = [ord(character) for character in found]
    ranges = list(zip(codes[::2], codes[1::2], strict=True))
    if name.startswith("^"):
        firsts = [0, *(high + 1 for _, high in ranges)]
        lasts = [*(low - 1 for low, _ in ranges), _LAST]
        ranges = [pair for pair in zip(firsts, lasts, strict=True) if pair[0] <= pair[1]]
    return "".join(f"\\U{low:08x}-\\U{high:08x}" for low, high in ranges)
