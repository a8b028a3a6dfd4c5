# SPDX-License-Identifier: Apache-2.0
"""The subnet file: written, read, cut off, and by flanneld; devices and MTUs that follow."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni_vxlan_overlay.lease import Lease, format_lease, parse_lease
from cni_vxlan_overlay.offload import wanted
from cni_vxlan_overlay.underlay import Underlay
from cni_vxlan_overlay.vtep import Vtep, device_name, vteps_of
from libcni.inet import Prefix
from libcni.types.errors import CniError

FAMILIES = st.sampled_from([(4,), (6,), (4, 6)])


@st.composite
def leases(draw: st.DrawFn) -> Lease:
    networks, subnets = [], []
    number = draw(st.integers(0, 255))
    for family in draw(FAMILIES):
        text, part = (
            ("10.244.0.0/16", f"10.244.{number}.0/24")
            if family == 4
            else ("fd00:10::/32", f"fd00:10:{number:x}::/64")
        )
        networks.append(Prefix.parse(text))
        subnets.append(Prefix.parse(part))
    return Lease(
        networks,
        subnets,
        draw(st.integers(0, 65535)),
        draw(st.booleans()),
        draw(st.lists(st.sampled_from(["adder.1", "adder6.1"]), unique=True)),
        draw(st.sampled_from(["", "/var/lib/vxlan-overlay/peers.json"])),
    )


def values(lease: Lease) -> tuple[object, ...]:
    return tuple(getattr(lease, name) for name in Lease.__slots__)


@given(leases())
def test_round_trip(lease: Lease) -> None:
    assert values(parse_lease(format_lease(lease), "file")) == values(lease)


@given(leases(), st.data())
def test_half_a_file_is_none(lease: Lease, data: st.DataObject) -> None:
    """Cut off anywhere before our own keys it is refused with 50: nothing half is believed."""
    text = format_lease(lease)
    end = text.index("ADDER_") if "ADDER_" in text else len(text)
    cut = data.draw(st.integers(0, end - 2))
    with pytest.raises(CniError) as raised:
        parse_lease(text[:cut], "/run/file")
    assert raised.value.code == 50 and "/run/file" in raised.value.msg


@given(
    st.text(max_size=300) | leases().map(format_lease), st.text(max_size=50), st.integers(0, 99)
)
def test_any_text_is_a_lease_or_refused(text: str, inserted: str, place: int) -> None:
    try:
        lease = parse_lease(text[:place] + inserted + text[place:], "file")
    except CniError as error:
        assert error.code == 50
        return
    assert lease.networks and lease.subnets
    assert all(prefix == prefix.network() for prefix in [*lease.networks, *lease.subnets])


def test_flannelds_file() -> None:
    """As it writes it; what it does not know is skipped, and so are comments."""
    lease = parse_lease(
        "# written by hand\nFLANNEL_NETWORK=10.244.0.0/16,10.244.0.0/16\n"
        "FLANNEL_SUBNET=10.244.1.1/24\nFLANNEL_IPV6_NETWORK=fd00:10:244::/48\n"
        "FLANNEL_IPV6_SUBNET=fd00:10:244:1::1/64\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n"
        "FLANNEL_LATER=1\n\n",
        "file",
    )
    assert [n.text() for n in lease.networks] == ["10.244.0.0/16", "fd00:10:244::/48"]
    assert [s.text() for s in lease.subnets] == ["10.244.1.0/24", "fd00:10:244:1::/64"]
    assert (lease.mtu, lease.masquerades, lease.devices, lease.peers_file) == (1450, True, [], "")
    assert lease.network_of(Prefix.parse("10.244.7.0/24")) == lease.networks[0]
    assert lease.network_of(Prefix.parse("10.0.0.0/8")) is None


@given(leases(), st.sampled_from([{False}, {True}, {False, True}]), st.integers(576, 9000))
def test_devices_of_a_node(lease: Lease, families: set[bool], mtu: int) -> None:
    """One for each family of the underlay; every subnet's address is on exactly one of them."""
    addresses = {is6: "2001:db8::1" if is6 else "192.0.2.1" for is6 in families}
    underlay = Underlay("eth0", 3, mtu, addresses, [])
    lease.mtu = underlay.overlay_mtu()
    assert lease.mtu == mtu - (70 if True in families else 50)
    vteps = vteps_of("net", underlay, lease, vni=7, port=8472, learning=False, gbp=False)
    assert {vtep.is_ipv6 for vtep in vteps} == families
    assert sorted(a.text() for vtep in vteps for a in vtep.addresses) == sorted(
        Prefix(subnet.packed, subnet.bits).text() for subnet in lease.subnets
    )
    for vtep in vteps:
        assert vtep.mtu == lease.mtu and vtep.local == addresses[vtep.is_ipv6]
        for address in vtep.addresses:
            assert (address.bits == 128) == vtep.is_ipv6 or len(families) == 1


@given(st.integers(1, (1 << 24) - 1), st.booleans())
def test_names_fit(vni: int, is_ipv6: bool) -> None:
    """In the 15 characters of an interface's name, alias and all."""
    local = "2001:db8::1" if is_ipv6 else "192.0.2.1"
    vtep = Vtep("a" * 200, vni, 8472, local, 1, 1450, [])
    assert vtep.name == device_name(vni, is_ipv6) and len(vtep.name) <= 15
    assert len(vtep.alias) < 256


@pytest.mark.parametrize(
    ("choice", "release", "expected"),
    [
        ("on", "4.9.0", True),
        ("off", "6.1.0", False),
        ("auto", "5.6.19-300.fc32", False),
        ("auto", "4.19.0-27-amd64", False),
        ("auto", "5.7.0", None),
        ("auto", "6.18.44", None),
        ("auto", "10.0", None),
        ("auto", "strange", None),
    ],
)
def test_checksum_offload(choice: str, release: str, expected: bool | None) -> None:
    assert wanted(choice, release) is expected
