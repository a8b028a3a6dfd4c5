# SPDX-License-Identifier: Apache-2.0
"""The state of a namespace and of the plugins' files as lines of text that can be compared."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import subprocess
from collections.abc import Callable, Iterable
from typing import Any

Line = str
Ignore = Callable[[str, Line], bool]

#: Where plugins and runtimes keep files. Temporary files of a one-file freezer would be _MEI*.
STATE = ("/var/lib/cni", "/run", "/etc/cni")
#: Mount points of namespaces (made by tests), the lock file of iptables, and umount(8)'s own.
_NOT_STATE = ("/run/netns", "/run/xtables.lock", "/run/mount")
#: Settings of /proc/sys/net/<family>/conf/*/ that plugins touch, or could by mistake.
_SYSCTLS = {
    "ipv4": "forwarding accept_redirects send_redirects rp_filter arp_notify arp_ignore "
    "arp_announce proxy_arp route_localnet accept_local disable_policy promote_secondaries",
    "ipv6": "forwarding accept_ra accept_dad enhanced_dad disable_ipv6 autoconf accept_redirects "
    "proxy_ndp addr_gen_mode keep_addr_on_down accept_ra_defrtr",
}
#: The kernel gives every interface link-local addresses and their routes, some time after it
#: came up: they come and go with the interface, which is compared.
_BY_ITSELF = (" fe80::", "fe80::/64 ", "anycast fe80::", "ff00::/8 ")
#: So do the IPv6 routes of the table `local`: one per address, some time after carrier came.
_PER_ADDRESS = ("local ", "anycast ")


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """Sections (links, addresses, ...) of lines. Equal snapshots mean an unchanged system."""

    sections: dict[str, frozenset[Line]]

    def difference(self, later: Snapshot, ignore: Ignore | None = None) -> list[str]:
        """What `later` lost ("- section: line") and gained ("+ section: line")."""
        found = []
        for section in sorted(self.sections.keys() | later.sections.keys()):
            before = self.sections.get(section, frozenset())
            after = later.sections.get(section, frozenset())
            for sign, lines in (("-", before - after), ("+", after - before)):
                found += [
                    f"{sign} {section}: {line}"
                    for line in sorted(lines)
                    if ignore is None or not ignore(section, line)
                ]
        return found


def take(files: bool = True) -> Snapshot:
    """The network namespace of the calling thread and, unless `files` is false, the files."""
    sections = {
        "link": _links(),
        "address": _addresses(),
        "route": _ip("route", "show", "table", "all") | _ip("-6", "route", "show", "table", "all"),
        "rule": _ip("rule", "show") | _ip("-6", "rule", "show"),
        "neighbour": _neighbours(),
        "fdb": _forwarding(),
        "vlan": _vlans(),
        "nft": nft_lines(),
        "sysctl": frozenset(_sysctls()),
    }
    if files:
        sections["file"] = frozenset(_files())
    return Snapshot(sections)


def _run(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    # A family that the namespace has never used has no table: "Dump terminated" and status 2.
    return done.stdout


def _json(*words: str) -> list[Any]:
    text = _run(*words)
    parsed: list[Any] = json.loads(text) if text.strip() else []
    return parsed


def _lines(*words: str) -> frozenset[Line]:
    return frozenset(line.strip() for line in _run(*words).splitlines() if line.strip())


def _ip(*words: str) -> frozenset[Line]:
    # Cached routes and counters vary without anybody's doing; expiry times too.
    lines = _lines("ip", *words)
    return frozenset(
        " ".join(line.split(" expires ")[0].replace(" linkdown", "").split())
        for line in lines
        if not any(word in line for word in _BY_ITSELF)
        and not (line.startswith(_PER_ADDRESS) and ":" in line)
    )


def _links() -> frozenset[Line]:
    keys = ("ifname", "address", "mtu", "master", "ifalias")
    found = []
    for link in _json("ip", "-j", "-d", "link", "show"):
        kind = link.get("linkinfo", {}).get("info_kind", "-")
        flags = [f for f in link["flags"] if f in ("UP", "PROMISC", "NOARP", "ALLMULTI")]
        port = link.get("linkinfo", {}).get("info_slave_data", {})
        words = [f"{key}={link[key]}" for key in keys if key in link]
        words += [f"{key}={port[key]}" for key in ("hairpin", "isolated") if port.get(key)]
        found.append(" ".join([*words, f"kind={kind}", *flags]))
    return frozenset(found)


def _addresses() -> frozenset[Line]:
    # Not the flags: "tentative" passes by itself.
    return frozenset(
        f"{link['ifname']} {a['local']}/{a['prefixlen']} {a['scope']} {a.get('label', '')}".strip()
        for link in _json("ip", "-j", "address", "show")
        for a in link["addr_info"]
        if "local" in a and not a["local"].startswith("fe80:")
    )


def _neighbours() -> frozenset[Line]:
    entries = _json("ip", "-j", "neigh", "show", "nud", "all")
    return frozenset(
        f"{e['dev']} {e['dst']} {e.get('lladdr', '')}"
        for e in entries
        if "NOARP" not in e.get("state", ()) and "FAILED" not in e.get("state", ())
    )


def _forwarding() -> frozenset[Line]:
    # An interface joins the multicast groups of its IPv6 addresses some time after it came up.
    lines = _lines("bridge", "fdb", "show")
    return frozenset(line for line in lines if not line.startswith("33:33:"))


def _vlans() -> frozenset[Line]:
    return frozenset(
        f"{port['ifname']} {v['vlan']}-{v.get('vlanEnd', v['vlan'])} {v.get('flags', [])}"
        for port in _json("bridge", "-j", "vlan", "show")
        for v in port.get("vlans", ())
    )


def nft_lines() -> frozenset[Line]:
    """The nftables rule set: a line per table, chain, set, rule and element, without handles."""
    text = _run("nft", "-j", "list", "ruleset")
    found: list[Line] = []
    for item in json.loads(text)["nftables"] if text.strip() else ():
        for kind, body in item.items():
            if kind == "metainfo":
                continue
            place = f"{body.get('family')} {body.get('table', body.get('name'))}"
            if kind == "rule":
                comment = f" # {body['comment']}" if "comment" in body else ""
                expression = _without_counters(body["expr"])
                found.append(f"rule {place} {body['chain']} {json.dumps(expression)}{comment}")
            elif kind in ("set", "map"):
                found.append(f"{kind} {place} {body['name']}")
                elements = _elements(body.get("elem", []))
                found += [f"element {place} {body['name']} {element}" for element in elements]
            else:
                found.append(f"{kind} {place} {body['name']} {body.get('hook', '')}".strip())
    return frozenset(found)


def _without_counters(expression: list[Any]) -> list[Any]:
    return [{"counter": None} if "counter" in part else part for part in expression]


def _elements(elements: Iterable[Any]) -> list[str]:
    return [json.dumps(element, sort_keys=True) for element in elements]


def _sysctls() -> Iterable[Line]:
    root = pathlib.Path("/proc/sys/net")
    paths = [root / "ipv4/ip_forward", root / "ipv4/conf/all/forwarding"]
    for family, names in _SYSCTLS.items():
        base = root / family / "conf"
        if base.is_dir():
            paths += [device / name for device in base.iterdir() for name in names.split()]
    for path in paths:
        try:
            yield f"{path.relative_to(root)}={path.read_text().strip()}"
        except OSError:
            continue


def _files() -> Iterable[Line]:
    for root in STATE:
        for path in pathlib.Path(root).rglob("*"):
            if str(path).startswith(_NOT_STATE):
                continue
            if path.is_file() and not path.is_symlink():
                data = path.read_bytes()
                yield f"{path} {data!r}" if len(data) < 200 else f"{path} {len(data)} {hash(data)}"
            else:
                yield str(path)
    for temporary in ("/tmp", "/var/tmp"):
        yield from map(str, pathlib.Path(temporary).glob("_MEI*"))
