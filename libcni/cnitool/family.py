# SPDX-License-Identifier: Apache-2.0
"""Networks whose MTU leaves no room for the addresses they give: each plugin's part is right."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from libcni.interface.mtu import IPV6_MINIMUM
from libcni.schema.explain import within

#: Keys that hold what a container's address is or is taken from.
_ADDRESS_KEYS = ("address", "subnet", "rangestart", "ipv6subnet")


def too_small_for_ipv6(plugins: list[tuple[str, dict[str, Any]]]) -> list[str]:
    """A fault for each MTU below what IPv6 needs, if any plugin of the list gives IPv6 addresses.

    With less the kernel takes IPv6 away from an interface: ADD fails, or, when a later plugin of
    the list sets the MTU, the addresses vanish.

    plugins: the path of each in the file, such as plugins[0], and its configuration.
    """
    six = next((text for _, document in plugins for text in _ipv6(document)), "")
    faults = []
    for place, document in plugins:
        mtu = document.get("mtu")
        if six and isinstance(mtu, int) and 0 < mtu < IPV6_MINIMUM:
            faults.append(
                f"{within(place, 'mtu')}: {mtu} is less than IPv6 needs, which is {IPV6_MINIMUM}; "
                f"the network gives addresses of {six}"
            )
    return faults


def _ipv6(value: Any, key: str = "") -> Iterator[str]:
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from _ipv6(inner, name)
    elif isinstance(value, list):
        for item in value:
            yield from _ipv6(item, key)
    elif isinstance(value, str) and key.lower() in _ADDRESS_KEYS and ":" in value:
        yield value
