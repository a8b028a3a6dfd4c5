# SPDX-License-Identifier: Apache-2.0
"""What the generated validators are made of: types and patterns as functions of any value.

Each decides as jsonschema (draft-07) does and never raises. The types are those of parsed JSON;
as for jsonschema, 1.0 is an integer (`canonical` has made an int of it) and true is none.
"""

from __future__ import annotations

from libcni.inet import pton

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

_HEX = frozenset("0123456789abcdefABCDEF")
_BLANKS_AND_CONTROLS = frozenset("\x7f" + "".join(map(chr, range(33))))
#: Not in an interface name: also the separators of paths and aliases.
_NOT_IN_NAME = _BLANKS_AND_CONTROLS | {"/", ":"}


def string(value: object) -> bool:
    """A JSON string."""
    return type(value) is str


def boolean(value: object) -> bool:
    """true or false; neither 0 nor "true"."""
    return type(value) is bool


def integer(value: object) -> bool:
    """A number without a fraction."""
    return type(value) is int or (type(value) is float and value.is_integer())


def mapping(value: object) -> bool:
    """A JSON object."""
    return type(value) is dict


def array(value: object) -> bool:
    """A JSON array."""
    return type(value) is list


def members(value: dict[str, Any], checks: dict[str, Callable[[Any], bool]]) -> bool:
    """Every key of `value` that `checks` names satisfies its check."""
    for key, item in value.items():
        check = checks.get(key)
        if check is not None and not check(item):
            return False
    return True


def each(values: Iterable[Any], check: Callable[[Any], bool]) -> bool:
    """Every one of `values` satisfies `check`."""
    for item in values:  # noqa: SIM110 - all() over a generator is slower
        if not check(item):
            return False
    return True


def address(value: object) -> bool:
    """An IPv4 or IPv6 address without zone and prefix length."""
    if type(value) is not str:
        return False
    try:
        pton(value)
    except ValueError:
        return False
    return True


def optional_address(value: object) -> bool:
    """An address, or "" for none."""
    return value == "" or address(value)


def prefix(value: object) -> bool:
    """An address with a prefix length: "10.1.2.0/24"; host bits may be set."""
    if type(value) is not str:
        return False
    text, slash, length = value.partition("/")
    if not slash or not (length.isascii() and length.isdigit()) or len(length) > 3:
        return False
    if length[0] == "0" and length != "0":
        return False
    return int(length) <= (128 if ":" in text else 32) and address(text)


def optional_prefix(value: object) -> bool:
    """An address with a prefix length, or "" for none."""
    return value == "" or prefix(value)


def address_or_prefix(value: object) -> bool:
    """An address, with or without a prefix length."""
    return prefix(value) or address(value)


def optional_mac(value: object) -> bool:
    """A 48-bit MAC address in one of the three common spellings, or "" for none."""
    if type(value) is not str:
        return False
    if not value:
        return True
    width = 2
    if len(value) == 17 and value[2] in ":-":
        parts = value.split(value[2])
    else:
        parts, width = value.split("."), 4
    if len(parts) * width != 12:
        return False
    return each(parts, lambda part: len(part) == width and _HEX.issuperset(part))


def optional_interface_name(value: object) -> bool:
    """A name that Linux accepts for a network device, or "" for the default."""
    return (
        type(value) is str
        and len(value) <= 15
        and value not in (".", "..")
        and _NOT_IN_NAME.isdisjoint(value)
    )


def text(value: object) -> bool:
    """What can be handed to the kernel: a path, a name; it ends at the first NUL."""
    return type(value) is str and "\0" not in value


def optional_chain_name(value: object) -> bool:
    """A name that iptables accepts for a chain, or "" for the default."""
    return type(value) is str and len(value) <= 28 and _BLANKS_AND_CONTROLS.isdisjoint(value)
