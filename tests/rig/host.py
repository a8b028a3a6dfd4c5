# SPDX-License-Identifier: Apache-2.0
"""One test's host: an empty network namespace, in which containers are namespaces."""

from __future__ import annotations

import json
import os
import pathlib
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from typing import Any

from tests.rig import isolation, snapshot
from tests.rig.snapshot import Snapshot


def ping(address: str, timeout: int, *prefix: str) -> None:
    """Reach `address` within `timeout` seconds or raise AssertionError; `prefix` runs ping.

    More than one try, as duplicate address detection may still hold an IPv6 address back.
    """
    deadline = time.monotonic() + timeout
    while True:
        done = subprocess.run(
            [*prefix, "ping", "-n", "-c1", "-W1", address],
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode == 0:
            return
        if time.monotonic() > deadline:
            raise AssertionError(f"ping {address}: {done.stdout}{done.stderr}")
        time.sleep(0.1)


class Netns:
    """A container's network namespace, as a runtime makes it. `path` is what CNI_NETNS names."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.path = f"/run/netns/{name}"
        isolation.command("ip", "netns", "add", name)

    def delete(self) -> None:
        """Remove it, interfaces and all. Idempotent."""
        if pathlib.Path(self.path).exists():
            subprocess.run(["ip", "netns", "delete", self.name], capture_output=True, check=False)

    def run(
        self, *words: str, check: bool = True, timeout: float = 30
    ) -> subprocess.CompletedProcess[str]:
        """Run a command inside; with `check`, its failure is an AssertionError with its output."""
        done = subprocess.run(
            ["nsenter", f"--net={self.path}", "--", *words],
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )
        if check and done.returncode:
            raise AssertionError(f"{' '.join(words)}: {done.stdout}{done.stderr}")
        return done

    def ip(self, *words: str) -> list[Any]:
        """What `ip -j ...` prints inside."""
        text = self.run("ip", "-j", *words).stdout
        parsed: list[Any] = json.loads(text) if text.strip() else []
        return parsed

    def snapshot(self) -> Snapshot:
        """The namespace's state (no files)."""
        return isolation.within(self.path, lambda: snapshot.take(files=False))

    def ping(self, address: str, timeout: int = 4) -> None:
        """Reach `address` from inside within `timeout` seconds, or fail the test."""
        ping(address, timeout, "nsenter", f"--net={self.path}")

    def link_names(self) -> set[str]:
        """The names of the interfaces inside."""
        return {link["ifname"] for link in self.ip("link", "show")}

    def addresses(self, ifname: str) -> set[str]:
        """The addresses of an interface that somebody assigned, as address/prefix."""
        return {
            f"{a['local']}/{a['prefixlen']}"
            for link in self.ip("address", "show", "dev", ifname)
            for a in link["addr_info"]
            if a["scope"] != "link"
        }


def _names(line: str, name: str) -> bool:
    """True when a snapshot line speaks of the interface `name`."""
    plain = line.replace("=", " ").replace("/", " ").replace(":", " ")
    return name in plain.split()


#: What host-local keeps of a network: its directory and in it, besides reservations, these.
_STORE = re.compile(
    r"/var/lib/cni/(networks|static)(/[^/ ]+(/(lock|last_reserved_ip\.\d+|\.owners)( .*)?)?)?",
    re.DOTALL,
)
#: Where runtimes (Go's libcni, ours) keep results; the directory outlives what was in it.
_RESULTS = "/var/lib/cni/results"
#: Forwarding is one setting that the kernel copies to every interface; it also switches
#: accept_redirects off, as routers have to.
_FORWARDING = re.compile(
    r"ipv4/ip_forward=[01]|ipv[46]/conf/[^/]+/forwarding=[01]|ipv4/conf/all/accept_redirects=[01]"
)
#: The masquerade of a network and of multicast; the one rule of macspoofchk; the maps and rules
#: of portmap, and its chains in iptables; those of firewall, the rules that lead from one to the
#: next, and what keeps bridges apart; and what iptables-nft makes whenever it is called.
_SKELETON = re.compile(
    r"(table inet|chain inet adder_ipmasq|set inet adder_ipmasq|rule inet adder_ipmasq) "
    r"(adder_ipmasq|postrouting|ip[46]\.).*"
    r"|(table bridge|chain bridge adder_spoofcheck|set bridge adder_spoofcheck"
    r"|rule bridge adder_spoofcheck) (adder_spoofcheck|prerouting|guarded|allowed).*"
    r"|(table|chain|set|map) inet adder_portmap .*|rule inet adder_portmap (?!conditional).*"
    r"|(table|chain|set|rule) inet adder_firewall .*"
    r"|(chain|rule) ip6? nat CNI-HOSTPORT-(DNAT|MASQ|SETMARK)( (?!.*dnat name).*)?"
    r"|rule ip6? nat (PREROUTING|OUTPUT|POSTROUTING) .*\"CNI-HOSTPORT-(DNAT|MASQ)\".*"
    r"|chain ip6? filter CNI-(FORWARD|ADMIN|ISOLATION-STAGE-[12])"
    r"|rule ip6? filter (FORWARD|CNI-FORWARD) .*\"CNI-(FORWARD|ADMIN|ISOLATION-STAGE-1)\".*"
    r"|rule ip6? filter CNI-ISOLATION-STAGE-[12] .*"
    r"|table (ip|ip6|bridge) (nat|filter) (nat|filter)"
    r"|chain (ip|ip6|bridge) (nat|filter) (PREROUTING|INPUT|FORWARD|OUTPUT|POSTROUTING)( .*)?"
)


def is_store(section: str, line: str) -> bool:
    """What even an ADD that failed may leave: the directory of IPAM, but no reservation."""
    return section == "file" and _STORE.fullmatch(line) is not None


def is_documented(section: str, line: str) -> bool:
    """What a successful ADD and its DEL may leave behind, besides the bridge.

    Forwarding stays switched on (others rely on it by now); host-local keeps its lock and the
    last address it gave; frames of rule sets (tables, chains, sets, rules that name no
    container) stay for the next ADD.
    """
    if section == "sysctl":
        return _FORWARDING.fullmatch(line) is not None
    if section == "nft":
        return _SKELETON.fullmatch(line) is not None
    return is_store(section, line) or (section == "file" and line == _RESULTS)


class Host:
    """The namespace the test process is in. Made by the fixture `host`, a new one per test."""

    def __init__(self) -> None:
        isolation.fresh_network()
        self._pristine = snapshot.take()
        self._leftovers = ""
        self._at_end: dict[Any, Callable[[], object]] = {}
        #: Interfaces that some ADD may leave behind.
        self._shared: list[str] = []
        self._own_links: list[str] = []
        self._own_tables: list[str] = []
        self._namespaces: list[Netns] = []
        self._kept: list[str] = []
        self._kept_files: list[str] = []

    def netns(self, name: str | None = None) -> Netns:
        """A new container namespace; removed after the test."""
        made = Netns(name or f"c{len(self._namespaces)}")
        self._namespaces.append(made)
        return made

    def run(self, *words: str) -> str:
        """Run a tool on the host; its stdout. Raises RuntimeError with its stderr.

        An interface that `ip link add` makes, or a table that `nft "add table` does, is removed
        at the end of the test.
        """
        if words[:3] == ("ip", "link", "add"):
            self._own_links.append(words[4] if words[3] in ("dev", "name") else words[3])
        if words[0] == "nft" and words[1].startswith("add table "):
            self._own_tables.append(words[1].split(";")[0].removeprefix("add "))
        return isolation.command(*words)

    def ip(self, *words: str) -> list[Any]:
        """What `ip -j ...` prints on the host."""
        text = isolation.command("ip", "-j", *words)
        parsed: list[Any] = json.loads(text) if text.strip() else []
        return parsed

    def link_names(self) -> set[str]:
        """The names of the host's interfaces."""
        return {link["ifname"] for link in self.ip("link", "show")}

    def ping(self, address: str, timeout: int = 4) -> None:
        """Reach `address` from the host within `timeout` seconds, or fail the test."""
        ping(address, timeout)

    def snapshot(self) -> Snapshot:
        """The host's state now: network and files."""
        return snapshot.take()

    def at_end(self, key: Any, work: Callable[[], object] | None) -> None:
        """What is to be called before the comparison at the end of the test; None: nothing."""
        self._at_end.pop(key, None)
        if work is not None:
            self._at_end[key] = work

    def share(self, *interfaces: str) -> None:
        """Interfaces documented to outlive a DEL; the comparison at the end skips them."""
        self._shared += interfaces

    def expect_leftovers(self, reason: str) -> None:
        """Do not compare at the end of this test: it leaves something on purpose. Say why.

        The mark `expect_leftovers` does the same for a test that cannot ask for `host`.
        """
        assert reason, "why does this test leave something behind?"
        self._leftovers = reason

    def keep(self, *interfaces: str) -> None:
        """Interfaces (bridges) that may outlive the test's DELs: the assertions skip them."""
        self._kept += interfaces

    def keep_files(self, *prefixes: str) -> None:
        """Paths that others than plugins write to (a runtime's own state)."""
        self._kept_files += prefixes

    def _is_kept(self, section: str, line: str, names: tuple[str, ...]) -> bool:
        if section == "file":
            return line.startswith(tuple(self._kept_files))
        return any(_names(line, name) for name in (*self._kept, *names))

    def assert_unchanged(self, before: Snapshot, *keep: str) -> None:
        """Nothing at all differs from `before`, except the interfaces named in `keep`."""
        changes = before.difference(
            self.snapshot(), lambda section, line: self._is_kept(section, line, keep)
        )
        assert not changes, "changed:\n" + "\n".join(changes)

    def assert_clean(self, before: Snapshot, *keep: str) -> None:
        """Like `assert_unchanged`, but for what plugins document to leave after the last DEL."""
        self.share(*keep)
        changes = before.difference(
            self.snapshot(),
            lambda section, line: (
                is_documented(section, line) or self._is_kept(section, line, keep)
            ),
        )
        assert not changes, "left behind:\n" + "\n".join(changes)

    def assert_undone(self, before: Snapshot, *keep: str) -> None:
        """After an ADD that failed: like `assert_unchanged`, but for host-local's directory."""
        changes = before.difference(
            self.snapshot(),
            lambda section, line: is_store(section, line) or self._is_kept(section, line, keep),
        )
        assert not changes, "not undone:\n" + "\n".join(changes)

    def finish(self) -> None:
        """Delete what is still attached, remove the namespaces, compare with the empty host.

        The kernel takes a moment to free a namespace and the interfaces that led to it.
        """
        for work in reversed(list(self._at_end.values())):
            work()
        for namespace in self._namespaces:
            namespace.delete()
        if self._leftovers:
            return
        for name in self.link_names().intersection(self._own_links):
            # The other end of a pair goes with the first.
            subprocess.run(["ip", "link", "delete", name], capture_output=True, check=False)
        for table in self._own_tables:
            isolation.command("nft", f"add {table}; delete {table}")
        deadline = time.monotonic() + 5
        while True:
            try:
                self.assert_clean(self._pristine, *self._shared)
                return
            except AssertionError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def close(self) -> None:
        """Remove namespaces and files, and leave the network to be freed."""
        for namespace in self._namespaces:
            namespace.delete()
        isolation.base_network()
        for directory in isolation.PRIVATE:
            for path in pathlib.Path(directory).iterdir():
                if path.name == "netns" and directory == "/run":
                    continue
                if path.is_dir() and not path.is_symlink() and not os.path.ismount(path):
                    shutil.rmtree(path, ignore_errors=True)
                elif not path.is_dir():
                    path.unlink(missing_ok=True)
