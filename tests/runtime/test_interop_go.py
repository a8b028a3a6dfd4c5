# SPDX-License-Identifier: Apache-2.0
"""Go's plugins and ours in one network, driven by our libcni as a runtime would."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Callable
from typing import Any

import pytest

from libcni.api import CNIConfig, GCAttachment, RuntimeConf
from libcni.conf import NetworkConfigList, network_conf_from_bytes
from tests.rig.host import Host, Netns
from tests.rig.plugins import BASE_ENVIRONMENT

BRIDGE = "mixed0"
SUBNET = "10.90.0.0/24"
STORE = pathlib.Path("/var/lib/cni/networks/mixed")
VERSIONS = ["0.3.0", "0.3.1", "0.4.0", "1.0.0"]

#: Who does what: the plugins of a network in the order of CNI_PATH directories.
MIXTURES = {
    "all Go": {"bridge": "go", "host-local": "go", "portmap": "go", "tuning": "go"},
    "all ours": {"bridge": "ours", "host-local": "ours"},
    "our bridge": {"bridge": "ours", "host-local": "go", "portmap": "go", "tuning": "go"},
    "our host-local": {"bridge": "go", "host-local": "ours", "portmap": "go", "tuning": "go"},
    "ours before Go's": {"bridge": "ours", "host-local": "ours", "portmap": "go", "tuning": "go"},
}


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Plugins get this process's environment: no more of it than a runtime's."""
    for name in list(os.environ):
        if name.startswith("CNI_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PATH", BASE_ENVIRONMENT["PATH"])


@pytest.fixture(params=MIXTURES, ids=[name.replace(" ", "-") for name in MIXTURES])
def mixture(
    request: pytest.FixtureRequest,
    bin_dir: pathlib.Path,
    go_bin_dir: pathlib.Path,
    tmp_path: pathlib.Path,
) -> tuple[dict[str, str], list[str]]:
    """Who does what, and the CNI_PATH for it: a directory of links for each of the two."""
    chosen: dict[str, str] = MIXTURES[request.param]
    origin = {"ours": bin_dir, "go": go_bin_dir}
    for name, maker in chosen.items():
        directory = tmp_path / maker
        directory.mkdir(exist_ok=True)
        (directory / name).symlink_to(origin[maker] / name)
    return chosen, [str(tmp_path / maker) for maker in sorted(set(chosen.values()))]


def network(plugins: dict[str, str], version: str, **changes: Any) -> NetworkConfigList:
    bridge = {
        "type": "bridge",
        "bridge": BRIDGE,
        "isDefaultGateway": True,
        "ipMasq": True,
        "ipam": {"type": "host-local", "ranges": [[{"subnet": SUBNET}]]},
        **changes,
    }
    chain: list[dict[str, Any]] = [bridge]
    if "portmap" in plugins:
        chain.append({"type": "portmap", "snat": True, "capabilities": {"portMappings": True}})
    if "tuning" in plugins:
        chain.append({"type": "tuning", "sysctl": {"net.ipv4.conf.all.log_martians": "1"}})
    document = {"cniVersion": version, "name": "mixed", "plugins": chain}
    return network_conf_from_bytes(json.dumps(document).encode())


def runtime(container: Netns, name: str = "one") -> RuntimeConf:
    ports = [{"hostPort": 18090, "containerPort": 80, "protocol": "tcp"}] if name == "one" else []
    return RuntimeConf(name, container.path, "eth0", [], {"portMappings": ports})


def address(result: Any) -> str:
    return str(result.ips[0].address).partition("/")[0]


@pytest.mark.parametrize("version", VERSIONS)
def test_add_check_del(
    host: Host,
    netns: Callable[..., Netns],
    mixture: tuple[dict[str, str], list[str]],
    version: str,
) -> None:
    plugins, path = mixture
    cni, conf = CNIConfig(path), network(plugins, version)
    one, two = netns(), netns()
    before, inside = host.snapshot(), one.snapshot()
    first = cni.add_network_list(conf, runtime(one))
    second = cni.add_network_list(conf, runtime(two, "two"))
    assert address(first) != address(second)
    one.ping(address(second))
    one.ping("10.90.0.1")
    host.ping(address(first))
    if version >= "0.4.0":
        cni.check_network_list(conf, runtime(two, "two"))
    if version >= "0.4.0" and "portmap" not in plugins:
        # Go's portmap complains of missing IPv6 rules wherever a port is mapped.
        cni.check_network_list(conf, runtime(one))
    cached = cni.get_network_list_cached_result(conf, runtime(one))
    assert cached is not None and cached.ips[0].address == first.ips[0].address
    cni.del_network_list(conf, runtime(one))
    cni.del_network_list(conf, runtime(two, "two"))
    # Once more, as containerd does: nothing is there any more.
    cni.del_network_list(conf, RuntimeConf("one", "", "eth0"))
    assert list(STORE.glob("10.*")) == []
    if "portmap" in plugins:
        _forget_generic_chains_of_portmap(host)
    host.assert_clean(before, BRIDGE)
    if "tuning" not in plugins:
        assert inside.difference(one.snapshot()) == []
    assert one.link_names() == {"lo"}


def _forget_generic_chains_of_portmap(host: Host) -> None:
    """Go's portmap never removes the chains that all containers share, nor their rules."""
    for chain in ("CNI-HOSTPORT-DNAT", "CNI-HOSTPORT-SETMARK", "CNI-HOSTPORT-MASQ"):
        for where in ("PREROUTING", "OUTPUT", "POSTROUTING"):
            listed = host.run("iptables-save", "-t", "nat")
            for line in listed.splitlines():
                if line.startswith(f"-A {where}") and line.split(" -j ")[-1].startswith(chain):
                    host.run("sh", "-c", f"iptables -t nat -D {line[3:]}")
    listed = host.run("iptables-save", "-t", "nat")
    names = [line.split()[0][1:] for line in listed.splitlines() if line.startswith(":CNI-HOST")]
    for name in names:
        host.run("iptables", "-t", "nat", "-F", name)
    for name in names:
        host.run("iptables", "-t", "nat", "-X", name)


def test_failure_in_the_chain_names_plugin_and_cause(
    host: Host, netns: Callable[..., Netns], bin_dir: pathlib.Path, go_bin_dir: pathlib.Path
) -> None:
    container = netns()
    cni = CNIConfig([str(bin_dir), str(go_bin_dir)])
    document = {
        "cniVersion": "1.0.0",
        "name": "mixed",
        "plugins": [
            *json.loads(network({}, "1.0.0").bytes)["plugins"],
            {"type": "tuning", "sysctl": {"net.ipv4.no_such_key": "1"}},
        ],
    }
    conf = network_conf_from_bytes(json.dumps(document).encode())
    before = host.snapshot()
    with pytest.raises(Exception, match=r'type="tuning" failed \(add\).*no_such_key'):
        cni.add_network_list(conf, runtime(container))
    cni.del_network_list(conf, runtime(container))
    host.assert_clean(before, BRIDGE)


def test_gc_removes_what_the_runtime_forgot(
    host: Host, netns: Callable[..., Netns], bin_dir: pathlib.Path
) -> None:
    cni, conf = CNIConfig([str(bin_dir)]), network({}, "1.1.0")
    one, two = netns(), netns()
    before = host.snapshot()
    kept = cni.add_network_list(conf, runtime(one))
    cni.add_network_list(conf, runtime(two, "two"))
    two.delete()
    cni.get_status_network_list(conf)
    cni.gc_network_list(conf, [GCAttachment("one", "eth0")])
    assert [path.name for path in STORE.glob("10.*")] == [address(kept)]
    one.ping("10.90.0.1")
    cni.check_network_list(conf, runtime(one))
    cni.gc_network_list(conf, [])
    assert list(STORE.glob("10.*")) == []
    host.assert_clean(before, BRIDGE)


def test_loopback_of_both(
    netns: Callable[..., Netns], bin_dir: pathlib.Path, go_bin_dir: pathlib.Path
) -> None:
    document = {"cniVersion": "1.0.0", "name": "lo", "plugins": [{"type": "loopback"}]}
    conf = network_conf_from_bytes(json.dumps(document).encode())
    shown = []
    for directory in (bin_dir, go_bin_dir):
        container = netns()
        container.run("ip", "link", "set", "lo", "down")
        cni = CNIConfig([str(directory)])
        attachment = RuntimeConf("one", container.path, "lo")
        result = cni.add_network_list(conf, attachment)
        container.ping("127.0.0.1")
        cni.check_network_list(conf, attachment)
        cni.del_network_list(conf, attachment)
        shown.append([(ip.address, ip.interface) for ip in result.ips])
    assert shown[0] == shown[1]
