# SPDX-License-Identifier: Apache-2.0
"""Network sysctls of the namespace this thread is in, and no others.

A name is a path below /proc/sys/net with slashes ("ipv6/conf/eth0.100/accept_ra"), so that
interface names may contain dots.
"""

from __future__ import annotations

import posix

from libcni.fs import read_file, write_setting
from libcni.types.errors import KERNEL, CniError

_ROOT = "/proc/sys/net/"


def path_of(name: str) -> str:
    """The file behind `name`. Raises CniError 102 for a name that leaves /proc/sys/net."""
    parts = name.split("/")
    if not name or "" in parts or "." in parts or ".." in parts or "\0" in name:
        raise CniError(KERNEL, f"invalid net sysctl key {name!r}")
    return _ROOT + name


def read(name: str) -> str:
    """The value without its newline. Raises OSError (absent: no IPv6, no such interface)."""
    return read_file(path_of(name)).decode("ascii", "replace").strip()


def write(name: str, value: str) -> None:
    """Set the value. Idempotent. Raises CniError 102 naming key and cause."""
    path = path_of(name)
    try:
        # The kernel passes over what has no bytes.
        write_setting(path, value.encode() or b"\n")
    except OSError as error:
        cause = posix.strerror(error.errno or 0)
        raise CniError(KERNEL, f"cannot set sysctl net/{name} to {value}: {cause}") from error


def try_write(name: str, value: str) -> bool:
    """`write`, where absence (IPv6 off) and a read-only /proc/sys do not matter."""
    try:
        write(name, value)
    except CniError:
        return False
    return True


def write_if_differs(name: str, value: str) -> bool:
    """Set the value unless it is there already; True when it was changed.

    A read-only /proc/sys with the right value is good enough. Raises CniError 102.
    """
    try:
        if read(name) == value:
            return False
    except OSError:
        pass
    write(name, value)
    return True
