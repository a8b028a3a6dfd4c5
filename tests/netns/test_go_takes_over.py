# SPDX-License-Identifier: Apache-2.0
"""Back to the Go plugins: their DEL of what ours attached, with masquerade of either backend."""

from __future__ import annotations

import pathlib

import pytest

from tests.netns.bridge_network import BRIDGE, CONFIG, PodFactory, changed, pod, reserved
from tests.rig.host import Host

__all__ = ["pod"]

MASQUERADED = changed(CONFIG, cniVersion="1.0.0", ipMasq=True)


@pytest.mark.parametrize("state", ["netns", "netns-without-result"])
def test_the_iptables_backend(
    host: Host, pod: PodFactory, go_bin_dir: pathlib.Path, state: str
) -> None:
    before = host.snapshot()
    one = pod()
    inside = one.netns.snapshot()
    one.add(changed(MASQUERADED, ipMasqBackend="iptables"))
    one.check(bin_dir=go_bin_dir).succeeded()
    if state == "netns":
        one.delete(bin_dir=go_bin_dir)
    else:
        one.call("DEL", one.config, bin_dir=go_bin_dir).succeeded()
    host.keep_files("/var/lib/cni/networks/podnet/.owners")  # an index that mends itself
    host.assert_clean(before, BRIDGE)
    assert reserved() == set()
    assert inside.difference(one.netns.snapshot()) == []


@pytest.mark.parametrize("known", [True, False], ids=["result", "no-result"])
def test_the_nftables_backend(
    host: Host, pod: PodFactory, go_bin_dir: pathlib.Path, known: bool
) -> None:
    """Go's first DEL fails, but as its last step; the next succeeds. An element of our set stays:
    of an address that is given out again, to a container of the same network."""
    one = pod()
    inside = one.netns.snapshot()
    one.add(MASQUERADED)
    one.check(bin_dir=go_bin_dir).succeeded()
    document = one.with_result() if known else one.config
    one.call("DEL", document, bin_dir=go_bin_dir).failed(999, "CNI-")
    assert reserved() == set()
    assert inside.difference(one.netns.snapshot()) == []
    assert host.link_names() == {"lo", BRIDGE}
    one.call("DEL", document, bin_dir=go_bin_dir).succeeded()
    address = one.address()
    assert address in host.run("nft", "list", "table", "inet", "adder_ipmasq")
    # Ours finishes it; so does a DEL before going back.
    one.delete()
    assert address not in host.run("nft", "list", "table", "inet", "adder_ipmasq")
