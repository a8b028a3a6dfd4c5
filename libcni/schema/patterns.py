# SPDX-License-Identifier: Apache-2.0
"""The patterns of our schemas, each with the function that decides the same without `re`.

`import re` costs 4 ms, so a plugin must not compile a pattern. The schemas stay plain JSON
Schema, with the pattern spelled out for every other tool; `tools/generate_validators.py` looks
each up here and fails on one it does not find. The tests compare every pair on generated text.

Patterns are ECMA 262 as JSON Schema prescribes: `$` is the very end, and only ASCII digits are
digits. A pattern must mean the same to `re` with `fullmatch`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from libcni.schema import predicates

if TYPE_CHECKING:
    from collections.abc import Callable

_OCTET = "(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])"
_IPV4 = rf"(?:{_OCTET}\.){{3}}{_OCTET}"
_GROUP = "[0-9A-Fa-f]{1,4}"
_LAST32 = f"(?:{_GROUP}:{_GROUP}|{_IPV4})"
#: RFC 3986, appendix A, IPv6address.
_IPV6 = (
    "(?:"
    f"(?:{_GROUP}:){{6}}{_LAST32}"
    f"|::(?:{_GROUP}:){{5}}{_LAST32}"
    f"|(?:{_GROUP})?::(?:{_GROUP}:){{4}}{_LAST32}"
    f"|(?:(?:{_GROUP}:){{0,1}}{_GROUP})?::(?:{_GROUP}:){{3}}{_LAST32}"
    f"|(?:(?:{_GROUP}:){{0,2}}{_GROUP})?::(?:{_GROUP}:){{2}}{_LAST32}"
    f"|(?:(?:{_GROUP}:){{0,3}}{_GROUP})?::{_GROUP}:{_LAST32}"
    f"|(?:(?:{_GROUP}:){{0,4}}{_GROUP})?::{_LAST32}"
    f"|(?:(?:{_GROUP}:){{0,5}}{_GROUP})?::{_GROUP}"
    f"|(?:(?:{_GROUP}:){{0,6}}{_GROUP})?::"
    ")"
)
_LENGTH4 = "/(?:3[0-2]|[12]?[0-9])"
_LENGTH6 = "/(?:12[0-8]|1[01][0-9]|[1-9]?[0-9])"
_BYTE = "[0-9A-Fa-f]{2}"
_WORD = "[0-9A-Fa-f]{4}"

ADDRESS = f"^(?:{_IPV4}|{_IPV6})$"
OPTIONAL_ADDRESS = f"^(?:|{_IPV4}|{_IPV6})$"
IPV4_ADDRESS = f"^{_IPV4}$"
IPV6_ADDRESS = f"^{_IPV6}$"
PREFIX = f"^(?:{_IPV4}{_LENGTH4}|{_IPV6}{_LENGTH6})$"
OPTIONAL_PREFIX = f"^(?:|{_IPV4}{_LENGTH4}|{_IPV6}{_LENGTH6})$"
IPV4_PREFIX = f"^{_IPV4}{_LENGTH4}$"
IPV6_PREFIX = f"^{_IPV6}{_LENGTH6}$"
ADDRESS_OR_PREFIX = f"^(?:{_IPV4}(?:{_LENGTH4})?|{_IPV6}(?:{_LENGTH6})?)$"
OPTIONAL_MAC = (
    f"^(?:|{_BYTE}(?::{_BYTE}){{5}}|{_BYTE}(?:-{_BYTE}){{5}}|{_WORD}(?:\\.{_WORD}){{2}})$"
)
INTERFACE_NAME = "^(?!\\.{1,2}$)[^/:\\u0000- \\u007f]{1,15}$"
OPTIONAL_INTERFACE_NAME = "^(?!\\.{1,2}$)[^/:\\u0000- \\u007f]{0,15}$"
#: Of paths too: what is handed to the kernel ends at the first NUL.
TEXT = "^[^\\u0000]*$"
OPTIONAL_CHAIN_NAME = "^[^\\u0000- \\u007f]{0,28}$"
IDENTIFIER = "^[A-Za-z0-9][A-Za-z0-9_.-]*$"
PLUGIN_TYPE = "^[^/\\\\]+$"
#: X, X.Y or X.Y.Z, as libcni.version reads it; "" is 0.1.0.
VERSION = "^(?:|[0-9]{1,9}(?:\\.[0-9]{1,9}){0,2})$"

#: The pattern's text in a schema → the predicate that a generated validator calls instead.
PREDICATES: dict[str, Callable[[object], bool]] = {
    ADDRESS: predicates.address,
    OPTIONAL_ADDRESS: predicates.optional_address,
    PREFIX: predicates.prefix,
    OPTIONAL_PREFIX: predicates.optional_prefix,
    ADDRESS_OR_PREFIX: predicates.address_or_prefix,
    OPTIONAL_MAC: predicates.optional_mac,
    OPTIONAL_INTERFACE_NAME: predicates.optional_interface_name,
    TEXT: predicates.text,
    OPTIONAL_CHAIN_NAME: predicates.optional_chain_name,
}
