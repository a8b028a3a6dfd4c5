# SPDX-License-Identifier: Apache-2.0
"""The backend firewalld: the container's addresses as sources of a zone, over D-Bus.

Zones know addresses and nothing else; whose they are is in `sources`. Source: firewalld's
documentation, "D-Bus interface".
"""

from __future__ import annotations

import posix

from cni_firewall.dbus import Bus, Refused
from libcni.types.errors import CHECK_FAILED, KERNEL, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from libcni.inet import Prefix

NAME = "org.fedoraproject.FirewallD1"
_ZONE = (NAME, "/org/fedoraproject/FirewallD1", "org.fedoraproject.FirewallD1.zone")
#: What firewalld's errors begin with.
_ALREADY, _ABSENT = ("ZONE_ALREADY_SET", "ALREADY_ENABLED"), ("UNKNOWN_SOURCE", "NOT_ENABLED")


def is_running() -> bool:
    """True when firewalld is on the system's bus."""
    try:
        bus = Bus()
    except OSError:
        return False
    try:
        return bus.has_owner(NAME)
    except (OSError, Refused):
        return False
    finally:
        bus.close()


def _connect() -> Bus:
    try:
        return Bus()
    except OSError as error:
        cause = posix.strerror(error.errno) if error.errno else error.strerror
        raise CniError(
            KERNEL, f"firewalld is not reached over D-Bus: {cause}", "does firewalld run here?"
        ) from None


def _call(
    member: str, zone: str, addresses: list[Prefix], tolerated: tuple[str, ...]
) -> list[bool]:
    """Call a method of the zone for each address. Raises CniError 102 naming zone and address."""
    bus = _connect()
    try:
        answers = []
        for address in addresses:
            try:
                answers.append(bool(bus.call(*_ZONE, member, zone, address.text())))
            except Refused as error:
                if not error.text.startswith(tolerated):
                    raise CniError(
                        KERNEL,
                        f"firewalld: {member} {address.text()} in zone {zone}: {error.text}",
                        error.name,
                    ) from None
            except OSError as error:
                raise CniError(KERNEL, f"firewalld: {member}: {error}") from None
        return answers
    finally:
        bus.close()


def ensure(addresses: list[Prefix], zone: str) -> None:
    """Make the addresses sources of the zone. Idempotent. Raises CniError 102."""
    _call("addSource", zone, addresses, _ALREADY)


def remove(addresses: list[Prefix], zone: str) -> None:
    """Take them out of the zone. Idempotent. Without firewalld there is nothing to take out.

    Raises CniError 102.
    """
    if addresses and is_running():
        _call("removeSource", zone, addresses, _ABSENT)


def check(addresses: list[Prefix], zone: str) -> None:
    """Raise CniError 103 naming the first address that is no source of the zone."""
    for address in addresses:
        if _call("querySource", zone, [address], ()) != [True]:
            raise CniError(
                CHECK_FAILED, f"firewalld: {address.text()} is no source of zone {zone}"
            )


def unusable() -> str:
    """Why firewalld cannot be used here, or ""."""
    return "" if is_running() else "firewalld is not on the system's D-Bus"
