# SPDX-License-Identifier: Apache-2.0
"""static: which addresses a container gets, held against the Go plugin, and what CHECK notices."""

from __future__ import annotations

import json
import pathlib
import subprocess
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cni_static.add import add
from cni_static.check import check
from cni_static.delete import delete
from cni_static.status import status
from cni_static.validator import validate
from libcni.attachment import Attachment
from libcni.skel.request import Request
from libcni.types.errors import CniError

GO = pathlib.Path("/usr/lib/cni/static")
V4 = {"address": "10.1.2.3/24", "gateway": "10.1.2.1"}
V6 = {"address": "2001:db8:1::3/64", "gateway": "2001:db8:1::1"}


def request(
    addresses: list[dict[str, str]] | None = None,
    args: str = "",
    version: str = "1.0.0",
    prev: Any = None,
    **more: Any,
) -> Request:
    """A call as `libcni.skel` makes it. runtime, arguments: lists of `ips`; others: of ipam."""
    document: dict[str, Any] = {"cniVersion": version, "name": "lab", "type": "bridge"}
    runtime, arguments = more.pop("runtime", None), more.pop("arguments", None)
    document["ipam"] = {"type": "static", "addresses": addresses or [], **more}
    if runtime is not None:
        document["runtimeConfig"] = {"ips": runtime}
    if arguments is not None:
        document["args"] = {"cni": {"ips": arguments}}
    if prev is not None:
        document["prevResult"] = prev
    assert validate(document)
    return Request("ADD", "static", document, version, Attachment("lab", "c", "eth0"), args=args)


def ips(asked: Request) -> list[tuple[str, str]]:
    """Address and gateway of each address that ADD gives."""
    return [(ip.address, ip.gateway) for ip in add(asked).ips]


def test_the_configured_addresses() -> None:
    routes = [{"dst": "0.0.0.0/0"}, {"dst": "10.9.0.0/16", "gw": "10.1.2.9", "priority": 5}]
    dns = {"nameservers": ["10.1.2.53"], "search": ["lab"]}
    result = add(request([V4, V6], routes=routes, dns=dns)).to_json("1.0.0")
    assert result == {
        "cniVersion": "1.0.0",
        "dns": dns,
        "ips": [V4, V6],
        "routes": routes,
    }


def test_whose_word_counts() -> None:
    """CNI_ARGS adds; args.cni.ips replaces; runtimeConfig.ips replaces all."""
    args = "IP=10.7.0.9/16"
    assert [a for a, _ in ips(request([V4], args))] == ["10.1.2.3/24", "10.7.0.9/16"]
    assert [a for a, _ in ips(request([V4], args, arguments=["10.8.0.9/16"]))] == ["10.8.0.9/16"]
    asked = request([V4], args, arguments=["10.8.0.9/16"], runtime=["10.9.0.9/16"])
    assert [a for a, _ in ips(asked)] == ["10.9.0.9/16"]


def test_gateways_of_cni_args() -> None:
    """For each address that CNI_ARGS asks for in whose subnet they are; configured ones have
    what the configuration says."""
    args = "IgnoreUnknown=1;K8S_POD_NAME=x;IP=10.7.0.9/16;GATEWAY=10.7.0.1,10.1.2.254,2001:db8::1"
    assert ips(request([V4, V6], args)) == [
        ("10.1.2.3/24", "10.1.2.1"),
        ("2001:db8:1::3/64", "2001:db8:1::1"),
        ("10.7.0.9/16", "10.7.0.1"),
    ]
    assert ips(request([V4], "IP=10.1.2.9/24;GATEWAY=10.1.2.254")) == [
        ("10.1.2.3/24", "10.1.2.1"),
        ("10.1.2.9/24", "10.1.2.254"),
    ]


def test_blanks_in_the_lists_of_cni_args() -> None:
    args = "IP=10.7.0.6/24, 10.7.0.7/24 ;GATEWAY= 10.7.0.1, fd00::1"
    assert ips(request([], args)) == [("10.7.0.6/24", "10.7.0.1"), ("10.7.0.7/24", "10.7.0.1")]


def test_an_address_without_length() -> None:
    """As CRI-O and podman ask: length and gateway are those of its subnet here."""
    for asked in (
        request([V4], "IP=10.1.2.77"),
        request([V4], runtime=["10.1.2.77"]),
        request([V4], arguments=["10.1.2.77"]),
    ):
        assert ips(asked)[-1] == ("10.1.2.77/24", "10.1.2.1")
    with pytest.raises(CniError, match=r"'10\.5\.5\.5' is expected to be in CIDR") as refusal:
        ips(request([V4], runtime=["10.5.5.5"]))
    assert refusal.value.code == 7
    with pytest.raises(CniError, match=r"CNI_ARGS: IP: '10\.5\.5\.5'") as refusal:
        ips(request([V4], "IP=10.5.5.5"))
    assert refusal.value.code == 4


@pytest.mark.parametrize(
    ("asked", "code", "words"),
    [
        (lambda: request([V4], "IP=x"), 4, "'x'"),
        (lambda: request([V4], "GATEWAY=10.1.2.1/24"), 4, "GATEWAY"),
        (lambda: request([V4], "IP=10.7.0.9/16;NONSENSE=1"), 4, "NONSENSE"),
        (lambda: request([V4, {"address": "10.2.0.1/16"}], version="0.2.0"), 7, "0.2.0"),
        (lambda: request([V4, V6, V4]), 7, "addresses[2]: 10.1.2.3/24 is there twice"),
        (lambda: request([{"address": "10.1.2.0/24"}]), 7, "10.1.2.0/24 is the subnet"),
        (lambda: request([{"address": "10.1.2.255/24"}]), 7, "10.1.2.255/24 is the broadcast"),
        (lambda: request([{"address": "224.0.0.9/24"}]), 7, "224.0.0.9/24 is a multicast"),
        (lambda: request([{"address": "ff02::9/64"}]), 7, "ff02::9/64 is a multicast"),
        (lambda: request([{"address": "::/64"}]), 7, "::/64 is no address"),
        (lambda: request([{**V4, "gateway": "fd00::1"}]), 7, "fd00::1 is not of the family"),
        (lambda: request([V4], "IP=10.1.2.255"), 4, "CNI_ARGS: IP: 10.1.2.255/24 is the broad"),
        (lambda: request([V4], "IP=10.9.9.0/24"), 4, "CNI_ARGS: IP: 10.9.9.0/24 is the subnet"),
    ],
)
def test_what_is_refused(asked: Any, code: int, words: str) -> None:
    for verb in (add, status):
        with pytest.raises(CniError) as refusal:
            verb(asked())
        assert refusal.value.code == code
        assert words in str(refusal.value)


def test_small_subnets_have_no_address_to_spare() -> None:
    addresses = [{"address": a} for a in ("10.1.2.0/31", "10.1.2.9/32", "fd00:1::/64")]
    assert [a for a, _ in ips(request(addresses))] == ["10.1.2.0/31", "10.1.2.9/32", "fd00:1::/64"]


def test_what_is_asked_for_twice_is_given_once() -> None:
    """A runtime may ask for what is configured."""
    assert ips(request([V4, V6], "IP=10.1.2.3")) == ips(request([V4, V6]))
    bare = {"address": "10.1.2.3/24"}
    assert ips(request([bare], "IP=10.1.2.3/24;GATEWAY=10.1.2.1")) == [("10.1.2.3/24", "10.1.2.1")]
    assert ips(request([V4], "IP=10.1.2.3/24;GATEWAY=10.1.2.254"))[0] == (
        V4["address"],
        "10.1.2.1",
    )
    asked = request([V4], runtime=["10.1.2.9", "10.1.2.9/24"])
    assert ips(asked) == [("10.1.2.9/24", "10.1.2.1")]


def test_check() -> None:
    """Every address with its gateway has to be there; further ones may."""
    result = add(request([V4, V6])).to_json("1.0.0")
    check(request([V4, V6], prev=result))
    check(request([V4], prev=result))
    for position, gateway in ((0, "10.1.2.9"), (1, "")):
        changed = json.loads(json.dumps(result))
        changed["ips"][position]["gateway"] = gateway
        with pytest.raises(CniError, match="gateway of") as refusal:
            check(request([V4, V6], prev=changed))
        assert refusal.value.code == 103
    del result["ips"][0]
    with pytest.raises(CniError, match=r"expected 10\.1\.2\.3/24, found 2001") as refusal:
        check(request([V4, V6], prev=result))
    assert refusal.value.code == 103
    with pytest.raises(CniError, match="prevResult is missing"):
        check(request([V4]))


def test_delete_needs_nothing() -> None:
    for document in ({}, {"ipam": 5}, {"ipam": {"dataDir": 7}}):
        delete(Request("DEL", "static", document, "1.0.0", Attachment("lab", "c", "eth0")))


ADDRESSES = st.lists(
    st.sampled_from(
        [
            V4,
            V6,
            {"address": "10.7.255.9/8"},
            {"address": "::ffff:10.8.0.1/112"},
            {"address": "fd00::1/128", "gateway": "fd00::2"},
            {"address": "192.0.2.7/32", "gateway": "192.0.2.1"},
        ]
    ),
    max_size=3,
    unique_by=lambda entry: entry["address"],
)
LISTS = st.one_of(
    st.none(),
    st.lists(st.sampled_from(["10.1.9.9/16", "2001:db8:9::9/64"]), max_size=2, unique=True),
)
ARGS = st.sampled_from(
    [
        "",
        "IgnoreUnknown=1;K8S_POD_NAME=x",
        "IP=172.16.0.9/16",
        # Debian's does not look at configured addresses here; none of them has these.
        "IP=172.16.0.9/16,fd00:6::9/64;GATEWAY=172.16.0.1,fd00:6::1",
        "IP=172.16.0.9/16, 172.16.0.7/16;GATEWAY= 172.16.0.1, 10.7.0.1, 10.1.2.254",
        "GATEWAY=10.1.2.254",
        "IP=nonsense",
        "GATEWAY=nonsense",
        "WHAT=1",
    ]
)


@settings(deadline=None, max_examples=60)
@given(ADDRESSES, ARGS, LISTS, LISTS, st.sampled_from(["0.2.0", "0.4.0", "1.0.0"]))
def test_as_go_does(
    addresses: list[dict[str, str]],
    args: str,
    arguments: list[str] | None,
    runtime: list[str] | None,
    version: str,
) -> None:
    """The same result, or refused by both; gateways of requested addresses are ours alone."""
    asked = request(addresses, args, version, arguments=arguments, runtime=runtime)
    done = subprocess.run(
        [GO],
        input=json.dumps(asked.config).encode(),
        env={
            "CNI_COMMAND": "ADD",
            "CNI_CONTAINERID": "c",
            "CNI_NETNS": "/proc/self/ns/net",
            "CNI_NETNS_OVERRIDE": "1",
            "CNI_IFNAME": "eth0",
            "CNI_PATH": "/usr/lib/cni",
            "CNI_ARGS": args,
        },
        capture_output=True,
        check=False,
    )
    go = json.loads(done.stdout)
    try:
        ours = add(asked).to_json(version)
    except CniError as error:
        assert done.returncode != 0, f"Go accepts what we refuse: {error}"
        return
    assert done.returncode == 0, go
    for document in (ours, go):
        if not document.get("dns"):  # this version of Go's prints an empty one
            document.pop("dns", None)
    if runtime or arguments:
        for entry in ours.get("ips", []):
            entry.pop("gateway", None)
        for entry in go.get("ips", []):
            entry.pop("gateway", None)
        for family in ("ip4", "ip6"):
            ours.get(family, {}).pop("gateway", None)
            go.get(family, {}).pop("gateway", None)
    assert ours == go
