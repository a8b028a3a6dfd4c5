# SPDX-License-Identifier: Apache-2.0
"""Nodes of a cluster on one machine: each a network and a mount namespace of its own.

An underlay bridge in the test's namespace joins them. Every node has its own /run, /var/lib,
/etc/cni and its pods, as a machine has; what is called there is the real thing.
"""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Mapping
from typing import IO, Any

from tests.rig import plugins
from tests.rig.host import Host, ping

UNDERLAY = "underlay0"
#: Bytes that pods send each other, and where to.
_DATA, _PORT = 1 << 20, 7007
_RECEIVER = """
import shutil, socket, sys
address, port = sys.argv[1], int(sys.argv[2])
family = socket.AF_INET6 if ":" in address else socket.AF_INET
server = socket.create_server((address, port), family=family)
print(flush=True)
shutil.copyfileobj(server.accept()[0].makefile("rb"), sys.stdout.buffer)
"""
_SENDER = """
import socket, sys
with socket.create_connection((sys.argv[1], int(sys.argv[2])), 20) as connection:
    connection.sendall(sys.stdin.buffer.read())
"""
_PRIVATE = ("/run", "/var/lib/cni", "/var/lib/vxlan-overlay", "/etc/cni")


def underlay_address(number: int, ipv6: bool = False) -> str:
    """Address of a node on the underlay."""
    return f"2001:db8:50::{number:x}" if ipv6 else f"192.168.50.{number}"


class Pod:
    """A pod's namespace on a node; `result` is that of its ADD."""

    def __init__(self, node: Node, name: str) -> None:
        self.node = node
        self.name = name
        self.path = f"/run/netns/{name}"
        self.result: dict[str, Any] = {}
        self.config: dict[str, Any] = {}
        node.run("ip", "netns", "add", name)

    def addresses(self) -> list[str]:
        """Its addresses, without prefix lengths, in the order of the result."""
        return [ip["address"].partition("/")[0] for ip in self.result["ips"]]

    def command(self, *words: str) -> list[str]:
        """The command line that runs `words` inside."""
        return self.node.command("ip", "netns", "exec", self.name, *words)

    def run(self, *words: str, timeout: float = 60) -> str:
        """Run a command inside; its stdout. Raises AssertionError with its output."""
        return _run(self.command(*words), timeout)

    def ping(self, address: str, timeout: int = 8) -> None:
        """Reach `address` within `timeout` seconds, or fail the test."""
        ping(address, timeout, *self.command())

    def reaches(self, other: Pod, timeout: int = 8) -> None:
        """Ping all addresses of another pod."""
        for address in other.addresses():
            self.ping(address, timeout)

    def sends_to(self, other: Pod) -> None:
        """Send data by TCP to all addresses of another pod, whole, or fail the test."""
        data = os.urandom(_DATA)
        for address in other.addresses():
            server = subprocess.Popen(
                other.command(sys.executable, "-c", _RECEIVER, address, str(_PORT)),
                stdout=subprocess.PIPE,
            )
            with server:
                assert server.stdout is not None
                assert server.stdout.read(1) == b"\n", "it does not listen"
                client = self.command(sys.executable, "-c", _SENDER, address, str(_PORT))
                subprocess.run(client, input=data, check=True, timeout=60)
                assert server.stdout.read() == data, address


class Node:
    """One machine. Its underlay interface is eth0; the number gives its addresses."""

    def __init__(self, number: int, bin_dir: pathlib.Path, mtu: int = 1500, ipv6: bool = True):
        self.number = number
        self.name = f"node-{number}"
        self.bin_dir = bin_dir
        self._pods: dict[str, Pod] = {}
        self._holder = subprocess.Popen(
            [
                "unshare",
                "--mount",
                "--net",
                "--propagation=slave",
                "sh",
                "-c",
                "echo; exec sleep infinity",
            ],
            stdout=subprocess.PIPE,
        )
        assert self._holder.stdout is not None
        self._holder.stdout.readline()
        self.processes: list[subprocess.Popen[bytes]] = []
        for directory in _PRIVATE:
            self.run("mkdir", "-p", directory)
            self.run("mount", "-t", "tmpfs", "tmpfs", directory)
        self.run("mkdir", "-p", "/run/netns")
        # The other end in the namespace of the test, where the underlay's bridge is.
        subprocess.run(
            [
                "ip",
                "link",
                "add",
                f"node{number}",
                "mtu",
                str(mtu),
                "type",
                "veth",
                "peer",
                "name",
                "eth0",
                "mtu",
                str(mtu),
                "netns",
                str(self._holder.pid),
            ],
            check=True,
        )
        self.connect()
        self.run("ip", "link", "set", "lo", "up")
        self.run("ip", "link", "set", "eth0", "up")
        self.set_address(underlay_address(number), ipv6)
        # Forgets the first namespace that was ever made in this mount namespace.
        self.run("ip", "netns", "add", "warm-up")
        self.run("ip", "netns", "delete", "warm-up")

    @property
    def pid(self) -> int:
        """A process that lives in the node's namespaces."""
        return self._holder.pid

    @property
    def address(self) -> str:
        """Its IPv4 address on the underlay."""
        found = self.ip("-4", "address", "show", "dev", "eth0")
        address: str = found[0]["addr_info"][0]["local"]
        return address

    def set_address(self, address: str, ipv6: bool = True) -> None:
        """Give eth0 this address instead of the one it has."""
        self.run("ip", "address", "flush", "dev", "eth0", "scope", "global")
        self.run("ip", "address", "add", f"{address}/24", "dev", "eth0")
        if ipv6:
            number = int(address.rpartition(".")[2])
            self.run(
                "ip",
                "address",
                "add",
                f"{underlay_address(number, True)}/64",
                "dev",
                "eth0",
                "nodad",
            )

    def connect(self) -> None:
        """Plug the cable in."""
        subprocess.run(
            ["ip", "link", "set", f"node{self.number}", "master", UNDERLAY, "up"], check=True
        )

    def disconnect(self) -> None:
        """Pull the cable out."""
        subprocess.run(["ip", "link", "set", f"node{self.number}", "down"], check=True)

    def command(self, *words: str) -> list[str]:
        """The command line that runs `words` on this node."""
        return ["nsenter", f"--target={self.pid}", "--mount", "--net", "--", *words]

    def run(self, *words: str, timeout: float = 60) -> str:
        """Run a command on this node; its stdout. Raises AssertionError with its output."""
        return _run(self.command(*words), timeout)

    def ip(self, *words: str) -> list[Any]:
        """What `ip -j ...` prints here."""
        text = self.run("ip", "-j", *words)
        parsed: list[Any] = json.loads(text) if text.strip() else []
        return parsed

    def start(
        self,
        *words: str,
        environment: Mapping[str, str] | None = None,
        log: IO[bytes] | None = None,
    ) -> subprocess.Popen[bytes]:
        """Start a program that runs until the node goes, or it is stopped. log: its output."""
        process = subprocess.Popen(
            self.command(*words),
            env={**plugins.BASE_ENVIRONMENT, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=log or subprocess.DEVNULL,
            stderr=log or subprocess.DEVNULL,
        )
        self.processes.append(process)
        return process

    def write(self, path: str, text: str) -> None:
        """Write a file on this node."""
        subprocess.run(
            self.command("sh", "-c", 'mkdir -p "${0%/*}" && cat > "$0"', path),
            input=text.encode(),
            check=True,
        )

    def read(self, path: str) -> str:
        """The content of a file on this node."""
        return self.run("cat", path)

    def pod(self, name: str) -> Pod:
        """A new pod's namespace, not attached yet."""
        self._pods[name] = Pod(self, name)
        return self._pods[name]

    def call(
        self,
        type: str,
        verb: str,
        config: Mapping[str, Any],
        pod: Pod | None = None,
        bin_dir: pathlib.Path | None = None,
        ifname: str = "eth0",
    ) -> plugins.Reply:
        """Run a plugin here as a runtime does."""
        directory = bin_dir or self.bin_dir
        netns, container = (pod.path, f"{self.name}-{pod.name}") if pod else ("", "")
        environment = plugins.environment(verb, directory, netns, container, ifname if pod else "")
        done = subprocess.run(
            self.command(str(directory / type)),
            input=plugins.encode(config),
            env=environment,
            capture_output=True,
            timeout=60,
            check=False,
        )
        return plugins.reply(done.returncode, done.stdout, done.stderr)

    def attach(self, name: str, config: Mapping[str, Any]) -> Pod:
        """A pod with an interface: ADD of the plugin that `config` names has to succeed."""
        pod = self.pod(name)
        pod.config = dict(config)
        pod.result = self.call(config["type"], "ADD", config, pod).result()
        return pod

    def with_result(self, pod: Pod) -> dict[str, Any]:
        """The configuration of CHECK and DEL."""
        return {**pod.config, "prevResult": pod.result}

    def detach(self, pod: Pod) -> None:
        """DEL has to succeed; the namespace goes."""
        self.call(pod.config["type"], "DEL", self.with_result(pod), pod).succeeded()
        self.remove(pod)

    def remove(self, pod: Pod) -> None:
        """Remove a pod's namespace."""
        self.run("ip", "netns", "delete", pod.name)
        del self._pods[pod.name]

    def close(self) -> None:
        """Stop everything here and let the kernel free it."""
        for process in self.processes:
            with contextlib.suppress(ProcessLookupError):
                process.send_signal(signal.SIGKILL)
            process.wait()
        for pod in list(self._pods.values()):
            subprocess.run(
                self.command("ip", "netns", "delete", pod.name), capture_output=True, check=False
            )
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self._holder.wait()
        assert self._holder.stdout is not None
        self._holder.stdout.close()
        subprocess.run(
            ["ip", "link", "delete", f"node{self.number}"], capture_output=True, check=False
        )


class Cluster:
    """Nodes on one underlay, which is a bridge with the addresses of .254."""

    def __init__(self, host: Host, bin_dir: pathlib.Path, mtu: int = 1500) -> None:
        self.bin_dir = bin_dir
        self.nodes: dict[int, Node] = {}
        self._mtu = mtu
        host.run("ip", "link", "add", UNDERLAY, "mtu", str(mtu), "type", "bridge")
        host.run("ip", "link", "set", UNDERLAY, "up")
        host.run("ip", "address", "add", f"{underlay_address(254)}/24", "dev", UNDERLAY)
        host.run(
            "ip", "address", "add", f"{underlay_address(254, True)}/64", "dev", UNDERLAY, "nodad"
        )

    def node(self, number: int, ipv6: bool = True) -> Node:
        """A new node, or the one of that number."""
        if number not in self.nodes:
            self.nodes[number] = Node(number, self.bin_dir, self._mtu, ipv6)
        return self.nodes[number]

    def remove(self, number: int) -> None:
        """The machine is switched off."""
        self.nodes.pop(number).close()

    def close(self) -> None:
        """Remove all nodes and the underlay. Idempotent."""
        for number in list(self.nodes):
            self.remove(number)
        subprocess.run(["ip", "link", "delete", UNDERLAY], capture_output=True, check=False)


def _run(words: list[str], timeout: float) -> str:
    done = subprocess.run(
        words,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
        env=plugins.BASE_ENVIRONMENT,
    )
    if done.returncode:
        raise AssertionError(f"{' '.join(words)}: {done.stdout}{done.stderr}")
    return done.stdout
