# SPDX-License-Identifier: Apache-2.0
"""host-device: which device a place in /sys stands for, on made-up trees."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest

from cni_host_device.find import Config, interface_names, is_userspace
from libcni.types.errors import CniError

PCI = "0000:3b:00.2"


def tree(root: pathlib.Path, *paths: str) -> str:
    """Directories below a /sys."""
    for path in paths:
        (root / path).mkdir(parents=True)
    return str(root)


@pytest.mark.parametrize(
    ("path", "config"),
    [
        (f"bus/pci/devices/{PCI}/net/ens1", {"pciBusID": PCI}),
        (f"bus/pci/devices/{PCI}/net/ens1", {"runtimeConfig": {"deviceID": PCI}}),
        (f"bus/pci/devices/{PCI}/net/ens1", {"pciBusID": "x", "runtimeConfig": {"deviceID": PCI}}),
        (f"bus/pci/devices/{PCI}/virtio3/net/ens1", {"pciBusID": PCI}),
        ("bus/auxiliary/devices/core.sf.2/net/ens1", {"runtimeConfig": {"deviceID": "core.sf.2"}}),
        (f"devices/pci0/{PCI}/net/ens1", {"kernelpath": f"/sys/devices/pci0/{PCI}"}),
    ],
)
def test_places(tmp_path: pathlib.Path, path: str, config: dict[str, Any]) -> None:
    root = tree(tmp_path, path, "bus/pci/devices/0000:00:00.0/net/other")
    assert interface_names(Config(config), root) == ["ens1"]
    assert not is_userspace(Config(config), root)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"pciBusID": "0000:00:1f.6"}, "0000:00:1f.6"),
        ({"pciBusID": "0000:00:1f.6", "device": "eth7"}, ""),
        ({"runtimeConfig": {"deviceID": "mlx5_core.sf.4"}}, ""),
    ],
)
def test_the_address_for_the_result(config: dict[str, Any], expected: str) -> None:
    """Only of the PCI bus, and only where the device was found by it."""
    assert Config(config).pci_id == expected


def test_nothing_there(tmp_path: pathlib.Path) -> None:
    root = tree(tmp_path, f"bus/pci/devices/{PCI}")
    assert interface_names(Config({"pciBusID": PCI}), root) == []
    assert interface_names(Config({"kernelpath": "/sys/devices/x"}), root) == []


@pytest.mark.parametrize("driver", ["vfio-pci", "uio_pci_generic", "igb_uio", "mlx5_core"])
def test_drivers(tmp_path: pathlib.Path, driver: str) -> None:
    root = tree(tmp_path, f"bus/pci/devices/{PCI}", f"bus/pci/drivers/{driver}")
    (tmp_path / f"bus/pci/devices/{PCI}/driver").symlink_to(f"../../drivers/{driver}")
    assert is_userspace(Config({"pciBusID": PCI}), root) == (driver != "mlx5_core")
    assert not is_userspace(Config({"device": "ens1", "pciBusID": PCI}), root)


@pytest.mark.parametrize(
    ("config", "culprit"),
    [
        ({}, "specify either"),
        ({"device": "", "pciBusID": ""}, "specify either"),
        ({"pciBusID": "../../etc"}, "../../etc"),
        ({"pciBusID": ".."}, ".."),
        ({"kernelpath": "/etc"}, "/etc"),
        ({"kernelpath": "/sys/devices/../../etc"}, "/sys/devices/.."),
        ({"kernelpath": "/sys/devices/.."}, "/sys/devices/.."),
    ],
)
def test_what_is_refused(config: dict[str, Any], culprit: str) -> None:
    with pytest.raises(CniError) as caught:
        Config(config)
    assert caught.value.code == 7 and culprit in caught.value.msg
