# SPDX-License-Identifier: Apache-2.0
"""What a namespace holds, and the files that plugins keep, as lines that can be compared."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib
import re
import shutil
import socket
import struct
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from pyroute2 import IPRoute

from cni_conformance.namespaces import PRIVATE

#: Not a plugin's state: pinned namespaces, the suite's own files, lock files of iptables.
_NOT_STATE = ("/run/netns", "/run/conformance", "/run/xtables.lock", "/run/mount")
#: linux/if.h
_FLAGS = {0x1: "UP", 0x80: "NOARP", 0x100: "PROMISC", 0x200: "ALLMULTI"}
#: linux/if_link.h: IFLA_BRPORT_*, as pyroute2 names them, that plugins set.
_PORT = ("IFLA_BRPORT_MODE", "IFLA_BRPORT_ISOLATED", "IFLA_BRPORT_LEARNING")
#: Settings in /proc/sys/net/<family>/conf/{all,default}/ that plugins touch.
_SYSCTLS = {
    "ipv4": "forwarding accept_redirects send_redirects rp_filter arp_notify arp_ignore "
    "arp_announce proxy_arp route_localnet accept_local disable_policy promote_secondaries",
    "ipv6": "forwarding accept_ra accept_dad disable_ipv6 autoconf accept_redirects proxy_ndp "
    "addr_gen_mode keep_addr_on_down",
}
#: The same of one interface, as its netlink message has them (pyroute2's names).
_SETTINGS = {
    "ipv4": "forwarding accept_redirects send_redirects rp_filter arp_notify arp_ignore "
    "arp_announce arpfilter proxy_arp route_localnet accept_local nopolicy promote_secondaries",
    "ipv6": "forwarding accept_ra accept_dad disable_ipv6 autoconf accept_redirects proxy_ndp",
}
#: linux/netlink.h
_NETLINK_NETFILTER = 12
_NLMSG_ERROR, _NLMSG_DONE = 2, 3
#: Packets and bytes, in what iptables-save prints.
_COUNTERS = re.compile(r"\[\d+:\d+\]")
_RTM_F_CLONED = 0x200
#: States of neighbours that come and go by themselves.
_NUD_PERMANENT = 0x80


@dataclasses.dataclass(frozen=True)
class State:
    """Sections (link, address, route …) of lines. Equal states mean that nothing was changed."""

    sections: dict[str, frozenset[str]]

    def diff(self, later: State, ignore: Iterable[str] = ()) -> list[str]:
        """What `later` lost ("- link: …") and gained ("+ link: …"), sorted.

        ignore: regular expressions; a line "section: text" that one of them matches from its
        beginning is left out.
        """
        patterns = [re.compile(pattern) for pattern in ignore]
        found = []
        for section in sorted(self.sections.keys() | later.sections.keys()):
            before = self.sections.get(section, frozenset())
            after = later.sections.get(section, frozenset())
            for sign, lines in (("-", before - after), ("+", after - before)):
                texts = [f"{section}: {line}" for line in sorted(lines)]
                found += [
                    f"{sign} {text}" for text in texts if not any(p.match(text) for p in patterns)
                ]
        return found

    def lines(self, section: str) -> frozenset[str]:
        """The lines of one section; none if there is no such section."""
        return self.sections.get(section, frozenset())


def collapsed(difference: Sequence[str]) -> list[str]:
    """A difference without the settings of interfaces that came or went themselves.

    Every interface is born with dozens of them, which say nothing besides.
    """
    links = {(line[0], line.split()[2]) for line in difference if line[2:].startswith("link: ")}
    changed = {name for sign, name in links if ("-" if sign == "+" else "+", name) in links}

    def says_more(line: str) -> bool:
        setting = re.match(r"(.) sysctl: ipv[46]/conf/([^/]+)/", line)
        return not setting or setting.groups() not in links or setting[2] in changed

    return [line for line in difference if says_more(line)]


def take(files: bool = True) -> State:
    """The network namespace of the calling thread and, unless `files` is false, the files."""
    with IPRoute() as netlink:
        names = {0: "-"}
        links = list(netlink.get_links())
        names.update({link["index"]: str(link.get("ifname")) for link in links})
        sections = {
            "link": frozenset(_link(link, names) for link in links),
            "address": frozenset(_addresses(netlink, names)),
            "route": frozenset(_routes(netlink, names)),
            "rule": frozenset(_rules(netlink)),
            "neighbour": frozenset(_neighbours(netlink, names)),
            "fdb": frozenset(_forwarding(netlink, names)),
            "vlan": frozenset(_vlans(netlink, names)),
            "qdisc": frozenset(_disciplines(netlink, names)),
        }
    sections["nft"] = frozenset(_nftables())
    sections["iptables"] = frozenset(_iptables())
    settings = (line for link in links for line in _settings(link))
    sections["sysctl"] = frozenset([*_sysctls(), *settings])
    if files:
        sections["file"] = frozenset(_files())
    return State(sections)


def _link(link: Any, names: dict[int, str]) -> str:
    words = [f"{link.get('ifname')}"]
    info = link.get("linkinfo")
    words.append(f"kind={info.get('kind') if info else '-'}")
    words += [f"{key}={link.get(key)}" for key in ("address", "mtu", "ifalias", "txqlen", "group")]
    if link.get("master"):
        words.append(f"master={names.get(link.get('master'), '?')}")
    port = info.get("slave_data") if info else None
    if port:
        words += [f"{key}={port.get_attr(key)}" for key in _PORT if port.get_attr(key)]
    words += [name for bit, name in _FLAGS.items() if link["flags"] & bit]
    return " ".join(word for word in words if not word.endswith("=None"))


def _addresses(netlink: IPRoute, names: dict[int, str]) -> Iterator[str]:
    for address in netlink.get_addr():
        text = address.get("local") or address.get("address")
        # The kernel gives link-local ones, some time after an interface came up.
        if not text.startswith("fe80:"):
            device = names.get(address["index"], "?")
            label = address.get("label") or ""
            yield f"{device} {text}/{address['prefixlen']} scope={address['scope']} {label}"


def _routes(netlink: IPRoute, names: dict[int, str]) -> Iterator[str]:
    for route in netlink.get_routes():
        target = route.get("dst") or "default"
        by_itself = target.startswith(("fe80:", "ff00:")) or (
            # Those of IPv6 addresses in the table `local` follow some time after carrier.
            route["family"] == 10 and route["type"] in (2, 4, 5)
        )
        if route["flags"] & _RTM_F_CLONED or by_itself:
            continue
        yield (
            f"{target}/{route['dst_len']} via {route.get('gateway') or '-'} "
            f"dev {names.get(route.get('oif') or 0, '?')} table {route.get('table')} "
            f"src {route.get('prefsrc') or '-'} priority {route.get('priority') or 0} "
            f"scope {route['scope']} proto {route['proto']} type {route['type']} "
            f"family {route['family']} {_metrics(route)}".strip()
        )


def _metrics(route: Any) -> str:
    metrics = route.get("metrics")
    return f"metrics {json.dumps(metrics['attrs'], default=str)}" if metrics else ""


def _rules(netlink: IPRoute) -> Iterator[str]:
    for rule in netlink.get_rules():
        yield (
            f"{rule.get('priority') or 0}: from {rule.get('src') or 'all'}/{rule['src_len']} "
            f"to {rule.get('dst') or 'all'}/{rule['dst_len']} iif {rule.get('iifname') or '-'} "
            f"lookup {rule.get('table')} action {rule['action']} family {rule['family']}"
        )


def _neighbours(netlink: IPRoute, names: dict[int, str]) -> Iterator[str]:
    for entry in netlink.get_neighbours():
        if entry["state"] & _NUD_PERMANENT:
            name, address = names.get(entry["ifindex"], "?"), entry.get("lladdr") or "-"
            yield f"{name} {entry.get('dst')} {address}"


def _forwarding(netlink: IPRoute, names: dict[int, str]) -> Iterator[str]:
    for entry in netlink.fdb("dump"):
        address = entry.get("lladdr") or "-"
        # An interface joins multicast groups some time after it came up; what a bridge learned
        # goes by itself.
        if not address.startswith(("33:33:", "01:00:5e")) and entry["state"] & _NUD_PERMANENT:
            name = names.get(entry["ifindex"], "?")
            yield f"{name} {address} {entry.get('dst') or ''}".strip()


def _vlans(netlink: IPRoute, names: dict[int, str]) -> Iterator[str]:
    for link in netlink.get_vlans():
        described = link.get_attr("IFLA_AF_SPEC")
        for vlan in described.get_attrs("IFLA_BRIDGE_VLAN_INFO") if described else ():
            yield f"{names.get(link['index'], '?')} {vlan['vid']} flags={vlan['flags']}"


def _disciplines(netlink: IPRoute, names: dict[int, str]) -> Iterator[str]:
    for discipline in netlink.get_qdiscs():
        kind = discipline.get_attr("TCA_KIND")
        # What every interface is born with.
        if kind not in ("noqueue", "pfifo_fast", "fq_codel", "mq", "noop", "pfifo"):
            parameters = discipline.get_attr("TCA_OPTIONS") if kind == "tbf" else None
            text = json.dumps(parameters["attrs"], default=str) if parameters else ""
            name = names.get(discipline["index"], "?")
            yield f"{name} {kind} parent={discipline['parent']:#x} {text}".strip()


def _output(*words: str) -> str:
    if shutil.which(words[0]) is None:
        return ""
    return subprocess.run(words, capture_output=True, text=True, check=False).stdout


def _has_nftables() -> bool:
    """Whether this namespace has any table: asking the kernel is cheaper than starting nft."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER) as netlink:
        # nlmsghdr, nfgenmsg: NFT_MSG_GETTABLE, NLM_F_REQUEST | NLM_F_DUMP, all families.
        netlink.send(struct.pack("=IHHIIBBH", 20, 10 << 8 | 1, 0x301, 1, 0, 0, 0, 0))
        kind: int = struct.unpack_from("=H", netlink.recv(1 << 16), 4)[0]
    return kind not in (_NLMSG_DONE, _NLMSG_ERROR)


def _nftables() -> Iterator[str]:
    text = _output("nft", "-j", "list", "ruleset") if _has_nftables() else ""
    for item in json.loads(text)["nftables"] if text.strip() else ():
        for kind, body in item.items():
            if kind == "metainfo":
                continue
            place = f"{body.get('family')} {body.get('table', body.get('name'))}"
            if kind == "rule":
                expression = [
                    {"counter": None} if "counter" in part else part for part in body["expr"]
                ]
                comment = f" # {body['comment']}" if "comment" in body else ""
                yield f"rule {place} {body['chain']} {json.dumps(expression)}{comment}"
            elif kind in ("set", "map"):
                yield f"{kind} {place} {body['name']}"
                for element in body.get("elem", ()):
                    yield f"element {place} {body['name']} {json.dumps(element, sort_keys=True)}"
            else:
                yield f"{kind} {place} {body['name']} {body.get('hook', '')}".strip()


def _iptables() -> Iterator[str]:
    """Rules of the legacy tables; those of iptables-nft are nftables' already."""
    for command, tables in (
        ("iptables-legacy-save", "/proc/net/ip_tables_names"),
        ("ip6tables-legacy-save", "/proc/net/ip6_tables_names"),
    ):
        path = pathlib.Path(tables)
        if path.exists() and path.read_text().strip():
            for line in _output(command).splitlines():
                if line.startswith(("-A", ":", "*")):
                    yield f"{command.split('-')[0]} {_COUNTERS.sub('', line)}".strip()


def _sysctls() -> Iterator[str]:
    root = pathlib.Path("/proc/sys/net")
    paths = [root / "ipv4/ip_forward"]
    for family, names in _SYSCTLS.items():
        for scope in ("all", "default"):
            paths += [root / family / "conf" / scope / name for name in names.split()]
    for path in paths:
        try:
            yield f"{path.relative_to(root)}={path.read_text().strip()}"
        except FileNotFoundError:
            continue  # a kernel without IPv6


def _settings(link: Any) -> Iterator[str]:
    """The settings of an interface, which /proc/sys has too but one file for each."""
    described = link.get_attr("IFLA_AF_SPEC")
    if described is None:
        return
    inet6 = described.get_attr("AF_INET6")
    found = {
        "ipv4": described.get_attr("AF_INET"),
        "ipv6": inet6.get_attr("IFLA_INET6_CONF") if inet6 else None,
    }
    for family, names in _SETTINGS.items():
        for name in names.split() if found[family] else ():
            value = found[family].get(name, "-")  # of a kernel that does not have it
            yield f"{family}/conf/{link.get('ifname')}/{name}={value}"


def _files() -> Iterator[str]:
    for root in PRIVATE:
        for path in sorted(pathlib.Path(root).rglob("*")):
            if str(path).startswith(_NOT_STATE):
                continue
            if path.is_file() and not path.is_symlink():
                data = path.read_bytes()
                yield f"{path} {_content(data)}"
            else:
                yield str(path)


def _content(data: bytes) -> str:
    """A short text as a JSON string; anything else as its hash."""
    try:
        text = data.decode()
    except UnicodeDecodeError:
        text = ""
    if len(data) < 200 and (text or not data):
        return json.dumps(text, ensure_ascii=False)
    return f"sha256 {hashlib.sha256(data).hexdigest()}"
