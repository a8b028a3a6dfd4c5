# SPDX-License-Identifier: Apache-2.0
"""Which device the configuration means: by name or MAC address from the kernel, else by /sys."""

from __future__ import annotations

import posix

from libcni.netlink.link import IFF_LOOPBACK, dump_links, find_link
from libcni.types.errors import INVALID_NETWORK_CONFIG, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from libcni.netlink.link import Link
    from libcni.netlink.socket import Socket

#: Of devices that a program drives and the kernel does not.
_USERSPACE_DRIVERS = ("vfio-pci", "uio_pci_generic", "igb_uio")


class Config:
    """What identifies the device; exactly one way is used. pci: PCI or auxiliary bus address."""

    __slots__ = ("device", "dns", "kernel_path", "mac", "pci")

    def __init__(self, document: dict[str, Any]) -> None:
        """Read the canonical document. Raises CniError 7."""
        get = document.get
        self.device: str = get("device", "")
        self.mac = ""
        self.kernel_path: str = get("kernelpath", "")
        runtime = get("runtimeConfig") or {}
        self.pci: str = runtime.get("deviceID") or get("pciBusID", "")
        self.dns: dict[str, Any] | None = get("dns") or None
        if get("hwaddr"):
            from libcni.mac import parse_mac

            self.mac = parse_mac(get("hwaddr", ""), "hwaddr")
        if not (self.device or self.mac or self.kernel_path or self.pci):
            raise CniError(
                INVALID_NETWORK_CONFIG,
                'specify either "device", "hwaddr", "kernelpath" or "pciBusID"',
            )
        if "/" in self.pci or self.pci in (".", ".."):
            raise CniError(INVALID_NETWORK_CONFIG, f"invalid device address {self.pci!r}")
        if self.kernel_path and (
            not self.kernel_path.startswith("/sys/devices/") or "/../" in self.kernel_path + "/"
        ):
            raise CniError(
                INVALID_NETWORK_CONFIG,
                f"kernelpath {self.kernel_path!r} must be below /sys/devices/",
            )

    @property
    def pci_id(self) -> str:
        """The PCI address by which the device is found; "" where it is by something else."""
        by_bus = not (self.device or self.mac or self.kernel_path)
        return self.pci if by_bus and self.pci.count(":") == 2 else ""

    @property
    def wanted(self) -> str:
        """For messages."""
        if self.device:
            return f"device {self.device}"
        if self.mac:
            return f"device with hwaddr {self.mac}"
        return f"device at {self.kernel_path or self.pci}"


def is_userspace(config: Config, root: str = "/sys") -> bool:
    """True for a PCI device whose driver gives it to a program. root: where /sys is."""
    if config.device or config.mac or config.kernel_path:
        return False
    try:
        driver = posix.readlink(f"{root}/bus/pci/devices/{config.pci}/driver")
    except OSError:
        return False
    return driver.rpartition("/")[2] in _USERSPACE_DRIVERS


def interface_names(config: Config, root: str = "/sys") -> list[str]:
    """The names that /sys has at the device's place, sorted. root: where /sys is."""
    if config.kernel_path:
        return _listed(root + config.kernel_path.removeprefix("/sys") + "/net")
    for bus in ("pci", "auxiliary"):
        place = f"{root}/bus/{bus}/devices/{config.pci}"
        names = _listed(f"{place}/net")
        for entry in _listed(place):
            if entry.startswith("virtio"):
                names += _listed(f"{place}/{entry}/net")
        if names:
            return sorted(names)
    return []


def _listed(path: str) -> list[str]:
    try:
        return sorted(posix.listdir(path))
    except OSError:
        return []


def find_device(sock: Socket, config: Config) -> Link | None:
    """The device on the host. Raises NetlinkError."""
    if config.device:
        return find_link(sock, config.device)
    if config.mac:
        found = [link for link in dump_links(sock) if link.mac == config.mac]
        return found[0] if found else None
    for name in interface_names(config):
        link = find_link(sock, name)
        if link is not None:
            return link
    return None


def refuse_loopback(device: Link, code: int) -> None:
    """Raise CniError `code` for the device that every namespace has one of, and keeps."""
    if device.flags & IFF_LOOPBACK:
        raise CniError(
            code, f"{device.name} cannot leave its namespace: it is the loopback device"
        )
