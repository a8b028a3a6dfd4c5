# SPDX-License-Identifier: Apache-2.0
"""Regular expressions of the allow-list: RE2's, as Go's plugin reads them, in Python's words.

Where both read an expression alike it stays as it is. What only Python understands is refused,
as Go does. Not understood either: Unicode classes such as \\pL, the flag U, and flags that are
amid an expression or taken away.
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
#: Repetitions that RE2 allows.
_MOST = 1000
#: Letters that mean something after a backslash, here and in a class.
_ESCAPES, _ESCAPES_IN_CLASS = "AabBdDfnrsStvwWz", "adDfnrsStvwW"
#: What RE2 does not have of what begins with "(?".
_GROUPS = ("=", "!", "<=", "<!", "#", "(", ">", "P=", "P>")


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
    repeats = False
    while position < len(expression):
        character = expression[position]
        if character == "+" and repeats:
            raise ValueError(f"invalid nested repetition at {expression[position:]!r}")
        # A lazy one's "?" is none itself.
        repeats = character in "*+?" and not repeats
        if character == "\\":
            part, position = _escape(expression, position)
        elif character == "[":
            part, position = _bracket(expression, position)
        elif expression.startswith("(?", position):
            part, position = _group(expression, position), position + 2
        elif character == "{":
            part = _count(expression, position)
            repeats, position = part != "\\{", position + len(part.removeprefix("\\"))
        else:
            part, position = character, position + 1
        parts.append(part)
    return "".join(parts)


def _group(expression: str, start: int) -> str:
    """What stands for the "(?" at `start`."""
    inside = expression[start + 2 :]
    flags = inside.partition(")")[0].partition(":")[0]
    is_named = inside.startswith(("<", "P<"))
    if inside.startswith(_GROUPS) or (not is_named and flags.strip("imsU-")):
        raise ValueError(f"RE2 has no {expression[start : start + 4]!r}")
    if is_named:
        return "(?P" if inside[0] == "<" else "(?"
    if "U" in flags or flags.startswith("-"):
        raise ValueError(f"flags such as (?{flags}) are not supported")
    return "(?"


def _count(expression: str, start: int) -> str:
    """The repetition at `start`, such as {2} or {2,5}; else the brace stands for itself, as that
    of "{,5}" does in RE2 alone."""
    inside = expression[start + 1 :].partition("}")[0]
    least, comma, most = inside.partition(",")
    whole = f"{{{inside}}}"
    if not expression.startswith(whole, start) or not least.isdecimal():
        return "\\{"
    if comma and most and not most.isdecimal():
        return "\\{"
    if max(int(least), int(most or 0)) > _MOST:
        raise ValueError(f"{whole}: a repetition of more than {_MOST} is too large")
    return whole


def _escape(expression: str, start: int, letters: str = _ESCAPES) -> tuple[str, int]:
    """What stands for the backslash at `start` and what belongs to it, and where that ends."""
    kind = expression[start + 1 : start + 2]
    if kind == "Q" and letters == _ESCAPES:
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
    if kind in tuple("01234567"):
        digits = expression[start + 1 : start + 4]
        while digits.strip("01234567"):
            digits = digits[:-1]
        if len(digits) == 1 and kind != "0":
            raise ValueError(f"RE2 has no \\{kind}")
        return _literally(chr(int(digits, 8))), start + 1 + len(digits)
    if kind.isalnum() and kind not in (*letters, "x"):
        raise ValueError(f"RE2 has no \\{kind}{' in a class' if kind in _ESCAPES else ''}")
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
    # A class, which begins no range.
    is_class = False
    while position < len(expression):
        character = expression[position]
        if character == "]" and position > first:
            return "".join(parts) + "]", position + 1
        end = expression.find(":]", position + 2)
        if expression.startswith("[:", position) and end >= 0:
            part, position, is_class = _named(expression[position + 2 : end]), end + 2, True
        elif character == "\\":
            is_class = expression[position + 1 : position + 2] in tuple("dDsSwW")
            part, position = _escape(expression, position, _ESCAPES_IN_CLASS)
        elif character == "-" and is_class:
            part, position, is_class = "\\-", position + 1, False
        else:
            is_class = False
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
