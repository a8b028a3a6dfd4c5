# SPDX-License-Identifier: Apache-2.0
"""One test's host: an empty network namespace, in which containers are namespaces."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
import time
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


def is_documented(section: str, line: str) -> bool:
    """What an ADD may leave behind after the last DEL, as the reference plugins do.

    Forwarding stays switched on (others rely on it by now); host-local keeps its lock and the
    last address it gave; frames of rule sets (tables, chains, sets) stay for the next ADD, but
    neither rules of a container nor elements.
    """
    if section == "sysctl":
        return "forward" in line or "redirects" in line
    if section == "file":
        name = line.split(" b'")[0].rpartition("/")[2]
        directory = not line.split(" b'")[0].count(" ") and pathlib.Path(line).is_dir()
        return name == "lock" or name.startswith("last_reserved_ip.") or directory
    if section == "nft":
        return line.startswith(("table", "set", "map", "counter")) or (
            line.startswith(("chain", "rule")) and "CNI-" not in line and "cni:" not in line
        )
    return False


class Host:
    """The namespace the test process is in. Made by the fixture `host`, a new one per test."""

    def __init__(self) -> None:
        isolation.fresh_network()
        self._namespaces: list[Netns] = []
        self._kept: list[str] = []
        self._kept_files: list[str] = []

    def netns(self, name: str | None = None) -> Netns:
        """A new container namespace; removed after the test."""
        made = Netns(name or f"c{len(self._namespaces)}")
        self._namespaces.append(made)
        return made

    def run(self, *words: str) -> str:
        """Run a tool on the host; its stdout. Raises RuntimeError with its stderr."""
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
        changes = before.difference(
            self.snapshot(),
            lambda section, line: (
                is_documented(section, line) or self._is_kept(section, line, keep)
            ),
        )
        assert not changes, "left behind:\n" + "\n".join(changes)

    def close(self) -> None:
        """Remove namespaces and files, and leave the network to be freed."""
        for namespace in self._namespaces:
            namespace.delete()
        isolation.base_network()
        for directory in ("/var/lib/cni", "/etc/cni", "/run"):
            for path in pathlib.Path(directory).iterdir():
                if path.name == "netns" and directory == "/run":
                    continue
                if path.is_dir() and not path.is_symlink() and not os.path.ismount(path):
                    shutil.rmtree(path, ignore_errors=True)
                elif not path.is_dir():
                    path.unlink(missing_ok=True)
