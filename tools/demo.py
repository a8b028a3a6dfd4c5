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
BIN = ROOT / "build/bin"
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

DRAWING = """
   ┌─ netns {left:<12}─────────┐         ┌─ netns {right:<12}────────┐
   │  eth0  {left4:<22} │         │  eth0  {right4:<21} │
   │        {left6:<22} │         │        {right6:<21} │
   └────────────┬───────────────────┘         └────────────┬──────────────────┘
                │ veth pair                                │ veth pair
   ┌─ host ─────┴──────────────────────────────────────────┴──────────────────┐
   │      {leftport:<16}                           {rightport:<16}              │
   │            └──────────── bridge {bridge:<8} ────────────┘                      │
   │                 {gateways:<56} │
   │            masquerade to the outside: nftables, in process               │
   └──────────────────────────────────────────────────────────────────────────┘
"""


def run(*command: str | pathlib.Path, **environment: str) -> str:
    """Run a command, show it, return its output; a failure ends the demo with its words."""
    shown = " ".join(str(part).replace(f"{BIN}/", "") for part in command)
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
    cache = scratch / "cache"
    conflist = json.loads(json.dumps(CONFLIST))
    conflist["plugins"][1]["ipam"]["dataDir"] = str(scratch / "networks")
    (configurations / "10-demo.conflist").write_text(json.dumps(conflist, indent=2))
    environment = {
        "CNI_PATH": str(BIN),
        "NETCONFPATH": str(configurations),
        "CNI_CACHE_DIR": str(cache),
    }
    print("\nTwo namespaces, as a runtime would make them for two containers:")
    results = {}
    for name in ("left", "right"):
        run("ip", "netns", "add", name)
        output = run(BIN / "cnitool", "add", "demo", f"/run/netns/{name}", **environment)
        results[name] = json.loads(output)
    print("\nWhat `cnitool add` answered for the second:\n")
    print(json.dumps(results["right"], indent=2))
    bridge = results["left"]["interfaces"][0]["name"]
    left, right = _addresses(results["left"]), _addresses(results["right"])
    print(
        DRAWING.format(
            left="left",
            right="right",
            left4=left[0],
            left6=left[1],
            right4=right[0],
            right6=right[1],
            leftport=results["left"]["interfaces"][1]["name"],
            rightport=results["right"]["interfaces"][1]["name"],
            bridge=bridge,
            gateways=", ".join(ip["gateway"] for ip in results["left"]["ips"]),
        )
    )
    print("They reach each other, the host, and the host reaches them:")
    for address in right:
        ping("left", address.partition("/")[0])
    for ip in results["left"]["ips"]:
        ping("left", ip["gateway"])
    ping(None, left[0].partition("/")[0])
    print("\nCHECK finds everything as ADD left it; DEL removes it:")
    for name in ("left", "right"):
        run(BIN / "cnitool", "check", "demo", f"/run/netns/{name}", **environment)
        run(BIN / "cnitool", "del", "demo", f"/run/netns/{name}", **environment)
        run("ip", "netns", "del", name)
    leftovers = [line for line in run("ip", "-o", "link").splitlines() if "veth" in line]
    reservations = [p for p in (scratch / "networks/demo").glob("*") if p.name[0] in "1f"]
    if leftovers or reservations:
        raise SystemExit(f"demo failed: left behind {leftovers} {reservations}")
    print("\nNothing is left: no interface, no reservation. Done.")


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
