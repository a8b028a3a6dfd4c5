# SPDX-License-Identifier: Apache-2.0
"""JSON text in and out, on the C scanner and encoder alone.

`import json` costs 5 ms (it brings `re`, `enum` and `functools`), the C module `_json` under it
0.3 ms, so the plugins use that module through the plain interface here. RFC 8259, read as Go's
encoding/json reads it: UTF-8, no NaN or Infinity, the last of duplicate keys wins.
"""

from __future__ import annotations

from libcni.types.errors import DECODING_FAILURE, CniError
from libcni.utf8 import decode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: Deeper documents are refused: no configuration comes near, and the scanner recurses in C.
MAX_DEPTH = 200

_WHITESPACE = " \t\r\n"


def _refuse_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


def _parse_float(text: str) -> float:
    """A number that overflows would be infinite, which is not JSON; Go refuses it too."""
    value = float(text)
    if value - value != 0.0:
        raise ValueError(f"number {text[:64]} is out of range")
    return value


class _Scanner:
    """What `_json.make_scanner` wants to find on its context."""

    strict = True
    object_hook = None
    object_pairs_hook = None
    parse_float = staticmethod(_parse_float)
    parse_int = int
    parse_constant = staticmethod(_refuse_constant)
    memo: dict[str, str] = {}


#: The C module's scanner, quoter and encoder, once `_codec` has loaded it.
_functions: tuple[Any, Any, Any] | None = None


def _codec() -> tuple[Any, Any, Any]:
    """Load `_json`: not with this module, as a shared library cannot be in a picture of the
    interpreter (see tools/freeze/snapshot.c)."""
    global _functions
    if _functions is None:
        import _json

        scan = _json.make_scanner(_Scanner)  # type: ignore[arg-type]
        quote = _json.encode_basestring
        encode = _json.make_encoder(None, None, quote, None, ":", ",", False, False, False)  # type: ignore[arg-type]
        _functions = scan, quote, encode
    return _functions


def loads(data: bytes, what: str = "network configuration") -> Any:
    """Parse one JSON document. `what` names it in errors.

    Raises CniError 6 when it is not UTF-8, not JSON, or nested deeper than MAX_DEPTH.
    """
    try:
        text = decode(data)
    except ValueError as error:
        raise CniError(DECODING_FAILURE, f"{what} is not UTF-8", str(error)) from None
    if data.count(b"[") + data.count(b"{") > MAX_DEPTH and _depth(text) > MAX_DEPTH:
        raise CniError(DECODING_FAILURE, f"{what} is nested deeper than {MAX_DEPTH} levels")
    start, end = 0, len(text)
    while start < end and text[start] in _WHITESPACE:
        start += 1
    if start == end:
        raise CniError(DECODING_FAILURE, f"{what} is empty", "a JSON object was expected")
    try:
        value, stop = _codec()[0](text, start)
    except (ValueError, StopIteration, RecursionError, ImportError, SystemError):
        # The scanner reports through json.decoder, which a bare plugin cannot import; in the
        # core phase of the interpreter it then fails without an exception of its own.
        return _explain(text, what)
    while stop < end and text[stop] in _WHITESPACE:
        stop += 1
    if stop != end:
        return _explain(text, what)
    if "\\ud" in text or "\\uD" in text:
        value = _mend_surrogates(value)
    return value


def _explain(text: str, what: str) -> Any:
    """Say where `text` is wrong, with the standard library's wording."""
    from libcni.boot import full_boot

    full_boot()
    import json

    try:
        json.loads(text, parse_constant=_refuse_constant, parse_float=_parse_float)
    except json.JSONDecodeError as error:
        near = text[max(0, error.pos - 20) : error.pos + 20]
        details = f"{error.msg} at line {error.lineno} column {error.colno}, near {near!r}"
    except (ValueError, RecursionError) as error:
        details = str(error)
    else:
        details = "not a JSON document"
    raise CniError(DECODING_FAILURE, f"{what} is not valid JSON", details)


def _depth(text: str) -> int:
    """Deepest nesting of brackets outside strings; an upper bound when strings are malformed."""
    depth = deepest = 0
    inside = escaped = False
    for character in text:
        if inside:
            if escaped:
                escaped = False
            elif character == "\\":
                escaped = True
            elif character == '"':
                inside = False
        elif character == '"':
            inside = True
        elif character in "[{":
            depth += 1
            deepest = max(deepest, depth)
        elif character in "]}":
            depth -= 1
    return deepest


def _mend_surrogates(value: Any) -> Any:
    """Replace lone surrogates, which have no UTF-8 form, by U+FFFD, as Go does."""
    if isinstance(value, str):
        return "".join("\ufffd" if 0xD800 <= ord(c) < 0xE000 else c for c in value)
    if isinstance(value, dict):
        return {_mend_surrogates(k): _mend_surrogates(v) for k, v in value.items()}
    if isinstance(value, list):
        return [_mend_surrogates(v) for v in value]
    return value


def dumps(value: Any) -> str:
    """Compact JSON text; keys in insertion order, non-ASCII kept."""
    return "".join(_codec()[2](value, 0))


def dumps_indented(value: Any, margin: str = "") -> str:
    """JSON text indented by four spaces, without a final newline, as the Go plugins print it."""
    inner = margin + "    "
    _, quote, encode = _codec()
    if isinstance(value, dict) and value:
        parts = [f"{inner}{quote(k)}: {dumps_indented(v, inner)}" for k, v in value.items()]
        return "{\n" + ",\n".join(parts) + f"\n{margin}}}"
    if isinstance(value, list) and value:
        parts = [inner + dumps_indented(v, inner) for v in value]
        return "[\n" + ",\n".join(parts) + f"\n{margin}]"
    return "".join(encode(value, 0))
