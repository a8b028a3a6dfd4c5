# SPDX-License-Identifier: Apache-2.0
"""Checksum offload of a VXLAN device: some underlays corrupt encapsulated packets with it.

Kernels before 5.7 computed wrong checksums for VXLAN behind NAT (fixed by ea64d8d6c675), so
"auto" switches it off there. Without it, throughput falls to about a quarter.
"""

from __future__ import annotations

import posix

#: linux/sockios.h, linux/ethtool.h
_SIOCETHTOOL = 0x8946
_ETHTOOL_GTXCSUM, _ETHTOOL_STXCSUM = 0x16, 0x17
_FIXED_IN = (5, 7)


def wanted(choice: str, release: str) -> bool | None:
    """On, off, or None to leave it; `release` is that of the kernel, as uname(2) has it."""
    if choice != "auto":
        return choice == "on"
    numbers = release.split("-")[0].split(".")
    try:
        version = (int(numbers[0]), int(numbers[1]))
    except (ValueError, IndexError):
        return None
    return None if version >= _FIXED_IN else False


def set_checksum_offload(name: str, choice: str) -> None:
    """Switch the device's tx checksum offload as `choice` ("auto", "on", "off"). Idempotent.

    Raises CniError 102.
    """
    on = wanted(choice, posix.uname().release)
    if on is not None:
        _ethtool(name, _ETHTOOL_STXCSUM, on)


def difference(name: str, choice: str) -> str:
    """How the device's tx checksum offload differs from `choice`, "" when not.

    Raises CniError 102.
    """
    on = wanted(choice, posix.uname().release)
    if on is None or _ethtool(name, _ETHTOOL_GTXCSUM) == on:
        return ""
    return f"tx checksum offload {_word(not on)} instead of {_word(on)}"


def _word(on: bool) -> str:
    return "on" if on else "off"


def _ethtool(name: str, command: int, value: bool = False) -> bool:
    """Set or get one flag (linux/ethtool.h struct ethtool_value). Raises CniError 102."""
    from libcni.boot import full_boot

    full_boot()
    import array
    import fcntl
    import socket
    import struct

    from libcni.types.errors import KERNEL, CniError

    data = array.array("I", [command, int(value)])
    request = struct.pack("16sP8x", name.encode(), data.buffer_info()[0])
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        try:
            fcntl.ioctl(handle, _SIOCETHTOOL, request)
        except OSError as error:
            what = "see" if command == _ETHTOOL_GTXCSUM else f"switch {_word(value)}"
            raise CniError(
                KERNEL,
                f"cannot {what} checksum offload of {name}: {posix.strerror(error.errno or 0)}",
            ) from None
    return bool(data[1])
