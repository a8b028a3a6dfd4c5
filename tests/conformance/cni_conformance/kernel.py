# SPDX-License-Identifier: Apache-2.0
"""What the kernel has no devices of: a type that makes such ones cannot be tested on it."""

from __future__ import annotations

import errno
import fcntl
import functools
import os
import struct
from typing import Any

from pyroute2 import IPRoute
from pyroute2.netlink.exceptions import NetlinkError

from cni_conformance import isolate, links

#: Seconds; the kernel may have to load a module.
_SECONDS = 30.0
_NAME = "cnfkind"
#: Kinds that are made on top of another link, and what else some kinds cannot do without.
_ON_A_LINK = ("ipvlan", "ipvtap", "macvlan", "macvtap", "vlan", "vxlan")
_OPTIONS: dict[str, dict[str, int]] = {
    "vlan": {"vlan_id": 7},
    "vrf": {"vrf_table": 7},
    "vxlan": {"vxlan_id": 7},
}
#: linux/if_tun.h. TUNSETIFF and the flags of a tap device without a header before its frames.
_TUNSETIFF = 0x400454CA
_IFF_TAP, _IFF_NO_PI = 0x0002, 0x1000
#: What opening /dev/net/tun, or asking it for a device, says of a kernel without its driver.
_NO_DRIVER = (errno.ENOENT, errno.ENXIO, errno.ENODEV, errno.EOPNOTSUPP)


@functools.cache
def has(kind: str) -> bool:
    """False when the kernel says that it has no devices of this kind ("vlan"; "tun" for taps).

    Tried once for a run, on a host of its own. Any other answer is for the cases to find.
    Raises OSError without root.
    """
    return isolate.run(lambda: _made(kind), [], _SECONDS) is not False


def _made(kind: str) -> bool:
    if kind == "tun":
        return _tap_made()
    links.prepare_host(kind in _ON_A_LINK)
    with IPRoute() as netlink:
        options: dict[str, Any] = dict(_OPTIONS.get(kind, {}))
        if kind in _ON_A_LINK:
            options["link"] = netlink.link_lookup(ifname=links.MASTER)[0]
        try:
            netlink.link("add", ifname=_NAME, kind=kind, **options)
        except NetlinkError as error:
            return bool(error.code != errno.EOPNOTSUPP)
    return True


def _tap_made() -> bool:
    """The kernel makes none of these by netlink."""
    try:
        descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC)
        try:
            request = struct.pack("16sH22x", _NAME.encode(), _IFF_TAP | _IFF_NO_PI)
            fcntl.ioctl(descriptor, _TUNSETIFF, request)
        finally:
            os.close(descriptor)
    except OSError as error:
        return error.errno not in _NO_DRIVER
    return True
