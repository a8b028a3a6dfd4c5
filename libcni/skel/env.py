# SPDX-License-Identifier: Apache-2.0
"""The CNI_* variables: which a verb needs, and what each may hold (spec 1.1.0 section 2)."""

from __future__ import annotations

import posix

from libcni.types.errors import INVALID_ENVIRONMENT, CniError
from libcni.utf8 import decode

#: Verbs that need the variable. CNI_NETNS is optional for DEL; GC and STATUS name no container.
_REQUIRED = {
    "CNI_CONTAINERID": ("ADD", "DEL", "CHECK"),
    "CNI_NETNS": ("ADD", "CHECK"),
    "CNI_IFNAME": ("ADD", "DEL", "CHECK"),
    "CNI_PATH": ("ADD", "DEL", "CHECK", "GC", "STATUS"),
}
_COMMANDS = ("ADD", "DEL", "CHECK", "GC", "STATUS", "VERSION")
#: linux/if.h IFNAMSIZ less the final NUL.
_MAX_IFNAME = 15
#: Longer identifiers would not fit the file names that runtimes and we derive from them.
_MAX_IDENTIFIER = 200


def variable(name: str) -> str:
    """A variable as text, "" when unset. Bytes that are not UTF-8 raise CniError 4."""
    try:
        return decode(posix.environ.get(name.encode(), b""))
    except ValueError:
        raise CniError(INVALID_ENVIRONMENT, f"{name} is not UTF-8") from None


def is_identifier(text: str) -> bool:
    """True for the names that may stand in file paths: [A-Za-z0-9][A-Za-z0-9_.-]*."""
    if not text.isascii() or not text[:1].isalnum():
        return False
    return text.replace("_", "0").replace(".", "0").replace("-", "0").isalnum()


def check_command(command: str) -> None:
    """Raise CniError 4 for an unknown verb, with the reference's words: runtimes match them."""
    if command not in _COMMANDS:
        raise CniError(
            INVALID_ENVIRONMENT,
            f"unknown CNI_COMMAND: {shorten(repr(command)[1:-1])}",
            f"expected one of {', '.join(_COMMANDS)}",
        )


def check_required(command: str, values: dict[str, str]) -> None:
    """Raise CniError 4 naming every variable that the verb needs and does not have."""
    missing = [n for n, verbs in _REQUIRED.items() if command in verbs and not values[n]]
    if missing:
        raise CniError(
            INVALID_ENVIRONMENT, f"required env variables [{','.join(missing)}] missing"
        )


def check_container_id(container_id: str) -> None:
    """Raise CniError 4 for what is no container ID; the value would become part of paths."""
    if not is_identifier(container_id):
        raise CniError(
            INVALID_ENVIRONMENT,
            f"invalid characters in containerID: CNI_CONTAINERID is {shorten(container_id)!r}",
            "expected a letter or digit, then letters, digits, '_', '.' and '-'",
        )
    if len(container_id) > _MAX_IDENTIFIER:
        raise CniError(
            INVALID_ENVIRONMENT,
            f"CNI_CONTAINERID has {len(container_id)} characters",
            f"at most {_MAX_IDENTIFIER} fit the names derived from it",
        )


def check_ifname(ifname: str) -> None:
    """Raise CniError 4 for what the kernel would not take as an interface name."""
    reason = ""
    if len(ifname.encode("utf-8", "replace")) > _MAX_IFNAME:
        reason = f"longer than {_MAX_IFNAME} bytes"
    elif ifname in (".", ".."):
        reason = "it is a directory"
    elif any(c in "/:\0" or c.isspace() for c in ifname) or b"\xa0" in ifname.encode():
        reason = "contains / or : or whitespace characters"
    elif "%" in ifname:
        reason = "the kernel takes a name with % for a pattern and chooses another one"
    if reason:
        raise CniError(
            INVALID_ENVIRONMENT,
            f"invalid interface name: CNI_IFNAME is {shorten(ifname)!r}",
            reason,
        )


def check_network_name(name: object) -> str:
    """The network's name from the configuration, or CniError 7."""
    from libcni.types.errors import INVALID_NETWORK_CONFIG

    if name is None or name == "":
        raise CniError(INVALID_NETWORK_CONFIG, "missing network name", "set the key name")
    if not isinstance(name, str) or not is_identifier(name):
        raise CniError(
            INVALID_NETWORK_CONFIG,
            f"invalid characters found in network name: name is {shorten(repr(name))}",
            "expected a letter or digit, then letters, digits, '_', '.' and '-'",
        )
    if len(name) > _MAX_IDENTIFIER:
        raise CniError(
            INVALID_NETWORK_CONFIG,
            f"network name has {len(name)} characters",
            f"at most {_MAX_IDENTIFIER} fit the names derived from it",
        )
    return name


def shorten(text: str) -> str:
    """At most 64 characters of a value, for messages."""
    return text if len(text) <= 64 else f"{text[:60]}… ({len(text)} characters)"
