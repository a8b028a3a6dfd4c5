# SPDX-License-Identifier: Apache-2.0
"""`make run`: two containers' namespaces on one bridge, attached by the frozen plugins.

Everything happens inside a network and mount namespace of its own ("the host" of the demo), in
which `cnitool` attaches two namespaces from a scratch directory. The machine's own network is
never touched, and everything is gone afterwards.
"""

from __future__ import annotations

import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from typing import Any

ROOT = pathlib.Path(__file__).resolve().parents[1]
BIN = pathlib.Path(os.environ.get("ADDER_BIN_DIR", ROOT / "build/bin"))
INSIDE = "ADDER_DEMO_SCRATCH"

CONFLIST = {
    "cniVersion": "1.1.0",
    "name": "demo",
    "plugins": [
        {"type": "loopback"},
        {
            "type": "bridge",
            "bridge": "demo0",
            "isDefaultGateway": True,
            "ipMasq": True,
            "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": "10.98.0.0/24"}], [{"subnet": "fd00:98::/64"}]],
            },
        },
    ],
}

WIDTH = 32
#: Where the wires come down inside the host's box.
_WIRES = (14, 51)


def _label_wires(*labels: str) -> str:
    """A line with each label in the middle over its wire, to the right of what would cross it."""
    line = ""
    for label, column in zip(labels, _WIRES, strict=True):
        line = line.ljust(max(column - len(label) // 2, len(line) + 1 if line else 0)) + label
    return line


def draw(bridge: str, gateways: str, containers: list[tuple[str, str, str, str]]) -> str:
    """Two containers on a bridge; each is (name, IPv4, IPv6, host interface).

    Interface names may have the 15 characters that the kernel allows.
    """

    def row(left: str, right: str, edge: str = "│", gap: str = "    ") -> str:
        return f"  {edge} {left:<{WIDTH - 2}}{edge}{gap}{edge} {right:<{WIDTH - 2}}{edge}"

    def wide(text: str) -> str:
        return f"  │ {text:<{2 * WIDTH + 3}}│"

    (left, left4, left6, left_port), (right, right4, right6, right_port) = containers
    line = "─" * (WIDTH - 1)
    foot = "─" * 15 + "┬" + "─" * (WIDTH - 17)
    wire = " " * 18 + "│ veth pair" + " " * (WIDTH - 6) + "│ veth pair"
    top = "─" * 15 + "┴" + "─" * (WIDTH + 4) + "┴" + "─" * (WIDTH - 17)
    joint = " " * 14 + "└" + f" bridge {bridge} ".center(WIDTH + 4, "─") + "┘"
    return "\n".join(
        [
            f"  ┌{line}┐    ┌{line}┐",
            row(f"netns {left}", f"netns {right}"),
            row(f"  eth0 {left4}", f"  eth0 {right4}"),
            row(f"       {left6}", f"       {right6}"),
            f"  └{foot}┘    └{foot}┘",
            wire,
            f"  ┌{top}┐",
            wide("host"),
            wide(_label_wires(left_port, right_port)),
            wide(joint),
            wide(f"{gateways:^{2 * WIDTH + 1}}"),
            wide("masquerade to the outside: nftables, in process".center(2 * WIDTH + 1)),
            f"  └{'─' * (2 * WIDTH + 4)}┘",
        ]
    )


def run(*command: str | pathlib.Path, **environment: str) -> str:
    """Run a command, show it, return its output; a failure ends the demo with its words."""
    shown = " ".join(str(part).replace(f"{BIN}/", "$CNI_PATH/") for part in command)
    print(f"  $ {shown}", flush=True)
    result = subprocess.run(
        list(command), env={**os.environ, **environment}, capture_output=True, text=True
    )
    if result.returncode:
        raise SystemExit(f"demo failed: {shown}\n{result.stdout}{result.stderr}")
    return result.stdout


def ping(namespace: str | None, address: str) -> None:
    """One echo request, from a namespace or from the demo's host; prints the round trip."""
    where: Sequence[str] = ("ip", "netns", "exec", namespace) if namespace else ()
    output = run(*where, "ping", "-c", "1", "-W", "2", address)
    (line,) = (text for text in output.splitlines() if "time=" in text)
    print(f"    {line}")


def _addresses(result: dict[str, Any]) -> tuple[str, str]:
    four, six = (ip["address"] for ip in result["ips"])
    return four, six


def demonstrate(scratch: pathlib.Path) -> None:
    """The demo itself, inside its own namespaces."""
    configurations = scratch / "net.d"
    configurations.mkdir()
    conflist = json.loads(json.dumps(CONFLIST))
    conflist["plugins"][1]["ipam"]["dataDir"] = str(scratch / "networks")
    (configurations / "10-demo.conflist").write_text(json.dumps(conflist, indent=2) + "\n")
    environment = {"CNI_PATH": str(BIN), "NETCONFPATH": str(configurations)}
    print("\nThe plugins, and a network. It is in a scratch directory that goes with the demo: to")
    print("repeat the commands, make it anew with this file in it.")
    print(f"  $ export {' '.join(f'{key}={value}' for key, value in environment.items())}")
    print(run("cat", configurations / "10-demo.conflist"), end="", flush=True)

    def cnitool(verb: str, name: str) -> str:
        words = (verb, "demo", f"/run/netns/{name}", "--cache-dir", str(scratch / "cache"))
        return run(BIN / "cnitool", *words, **environment)

    print("\nTwo namespaces, as a runtime would make them for two containers:")
    results = {}
    for name in ("left", "right"):
        run("ip", "netns", "add", name)
        results[name] = json.loads(cnitool("add", name))
    print("\nWhat `cnitool add` answered for the second:\n")
    print(json.dumps(results["right"], indent=2))
    bridge = results["left"]["interfaces"][0]["name"]
    containers = [
        (name, *_addresses(result), result["interfaces"][1]["name"])
        for name, result in results.items()
    ]
    gateways = ", ".join(ip["gateway"] for ip in results["left"]["ips"])
    print(f"\n{draw(bridge, gateways, containers)}\n")
    left, right = _addresses(results["left"]), _addresses(results["right"])
    print("They reach each other, the host, and the host reaches them:")
    for address in right:
        ping("left", address.partition("/")[0])
    for ip in results["left"]["ips"]:
        ping("left", ip["gateway"])
    ping(None, left[0].partition("/")[0])
    print("\nCHECK finds everything as ADD left it; DEL removes it:")
    for name in ("left", "right"):
        cnitool("check", name)
        cnitool("del", name)
        run("ip", "netns", "del", name)
    links = run("ip", "-brief", "link").splitlines()
    for line in links:
        print(f"    {line.rstrip()}")
    leftovers = [line for line in links if line.startswith("veth")]
    leftovers += [str(p) for p in (scratch / "networks/demo").glob("*") if p.name[0] in "1f"]
    leftovers += [str(p) for p in (scratch / "cache").rglob("*") if p.is_file()]
    if leftovers:
        raise SystemExit(f"demo failed: left behind {leftovers}")
    print("\nNo interface, reservation or cached result of the two is left. The bridge stays for")
    print("the next container; this one goes with the demo's own host. Done.")


def main() -> int:
    """Enter namespaces of our own, run the demo there, remove the scratch directory."""
    scratch = os.environ.get(INSIDE)
    if scratch is not None:
        subprocess.run(["mount", "-t", "tmpfs", "none", "/run"], check=True)
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        demonstrate(pathlib.Path(scratch))
        return 0
    if os.geteuid() != 0:
        print("make run needs root: it makes network namespaces", file=sys.stderr)
        return 1
    directory = tempfile.mkdtemp(prefix="adder-demo-")
    try:
        command = ["unshare", "--net", "--mount", "--propagation", "private"]
        command += [sys.executable, "-m", "tools.demo"]
        return subprocess.run(command, env={**os.environ, INSIDE: directory}).returncode
    finally:
        shutil.rmtree(directory)


if __name__ == "__main__":
    raise SystemExit(main())
