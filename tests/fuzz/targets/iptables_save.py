# SPDX-License-Identifier: Apache-2.0
"""What `iptables-save` prints: rules of the Go plugins, of older versions, of anybody.

An input is that output. The programs that print and take it are replaced; what the plugins would
have had them restore is looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from unittest import mock

from cni_firewall import ipt_rules as firewall
from cni_portmap import ipt as portmap
from cni_portmap import leftovers
from cni_portmap.mapping import Claim
from libcni import iptables
from libcni.attachment import Attachment
from libcni.inet import Prefix
from libcni.ipmasq import ipt as ipmasq
from tests.fuzz import properties
from tests.fuzz.target import Target

_ATTACHMENT = Attachment("podnet", "0a1b", "eth0")
_OTHER = leftovers.chain_name("podnet", "other")
_PREFIX = Prefix(b"\x0a\xf4\x01\x02", 24)
_CLAIMS = [Claim(2, 6, b"", 8080, 1), Claim(2, 17, b"\x7f\0\0\1", 53, 3)]


def run(data: bytes) -> None:
    """Everything that reads a table."""
    text = data.decode("utf-8", "replace")
    saved = [line for line in text.split("\n") if line.startswith((":", "-A "))]
    restored: list[str] = []

    def restore(version: int, table: str, lines: list[str], variant: str = "") -> None:
        restored.extend(lines)

    with (
        mock.patch.object(iptables, "find", lambda *_: "/usr/sbin/iptables"),
        mock.patch.object(iptables, "save", lambda *_: saved),
        mock.patch.object(iptables, "restore", restore),
    ):
        properties.coded(portmap.refuse_taken, _ATTACHMENT, _CLAIMS, saved)
        properties.coded(portmap.remove_legacy, _ATTACHMENT, [4, 6])
        kept = [Attachment("podnet", "other", "eth0")]
        properties.coded(portmap.gc_legacy, "podnet", kept, [4, 6])
        properties.coded(ipmasq.remove_legacy, _ATTACHMENT, [_PREFIX], [4])
        properties.coded(ipmasq.remove_legacy, _ATTACHMENT, None, [4])
        properties.coded(ipmasq.check, _ATTACHMENT, [_PREFIX])
        properties.coded(ipmasq.gc_legacy, "podnet", {"other"}, [4, 6])
        firewall.Saved(saved).has("FORWARD", "-j CNI-FORWARD")
    for line in restored:
        if line.startswith(("-F ", "-X ")) and not line[3:].startswith("CNI-"):
            raise properties.Violation(f"a chain that is somebody else's: {line}")


def seeds() -> Iterator[bytes]:
    """Tables as they are saved, of both suites."""
    chain = leftovers.chain_name("podnet", "0a1b")
    masquerade = _ATTACHMENT.go_masquerade_chain
    stale = Attachment("podnet", "gone", "").go_masquerade_chain
    yield f"""\
*nat
:PREROUTING ACCEPT [0:0]
:CNI-HOSTPORT-DNAT - [0:0]
:{chain} - [0:0]
:{_OTHER} - [0:0]
-A PREROUTING -m addrtype --dst-type LOCAL -j CNI-HOSTPORT-DNAT
-A CNI-HOSTPORT-DNAT -p tcp -m comment --comment "dnat name: \\"podnet\\" id: \\"0a1b\\"" \
-m multiport --dports 8080,8443 -j {chain}
-A CNI-HOSTPORT-DNAT -p udp -m comment --comment "dnat name: \\"podnet\\" id: \\"other\\"" \
-m multiport --dports 53 -j {_OTHER}
-A {chain} -s 10.244.1.0/24 -p tcp -m tcp --dport 8080 -j CNI-HOSTPORT-SETMARK
-A {chain} -p tcp -m tcp --dport 8080 -j DNAT --to-destination 10.244.1.2:80
-A {chain} -m comment --comment "cni:podnet:0a1b:eth1"
-A {_OTHER} -d 127.0.0.1/32 -p udp -m udp --dport 53:55 -j DNAT --to-destination 10.244.1.3:53
COMMIT
""".encode()
    yield f"""\
*nat
:POSTROUTING ACCEPT [0:0]
:{masquerade} - [0:0]
:{stale} - [0:0]
-A POSTROUTING -s 10.244.1.2/32 -m comment --comment "name: \\"podnet\\" id: \\"0a1b\\"" \
-j {masquerade}
-A POSTROUTING -s 10.244.1.9/32 -m comment --comment "name: \\"podnet\\" id: \\"gone\\"" \
-j {stale}
-A {masquerade} -d 10.244.1.0/24 -m comment --comment "name: \\"podnet\\" id: \\"0a1b\\"" -j ACCEPT
-A {masquerade} ! -d 224.0.0.0/4 -m comment --comment "name: \\"podnet\\" id: \\"0a1b\\"" \
-j MASQUERADE
COMMIT
""".encode()
    yield f"-A {chain} -p tcp -m tcp --dport 80 -j DNAT --to-destination [fd00::2]:80\n".encode()


TARGET = Target(run, seeds)
