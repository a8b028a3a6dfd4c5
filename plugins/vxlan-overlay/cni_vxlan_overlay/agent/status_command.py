# SPDX-License-Identifier: Apache-2.0
"""`vxlan-overlayd status`: the nodes as this one sees them, and whether its kernel agrees."""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import time
from typing import Any

from pyroute2.netlink.exceptions import NetlinkError
from rich.console import Console
from rich.table import Table

from cni_vxlan_overlay.agent import memory
from cni_vxlan_overlay.agent.model import Node
from cni_vxlan_overlay.agent.node_state import NodeState, NoState, PeerState, read_node_state
from cni_vxlan_overlay.agent.settings import COMMANDS
from cni_vxlan_overlay.agent.store import AWAY

#: Exit statuses: all is well, something is wrong, (2: usage), there is nothing to tell.
WHOLE, BROKEN, NO_STATE = 0, 1, 3


def parser(name: str, words: str) -> argparse.ArgumentParser:
    """What the operator's commands have in common."""
    made = argparse.ArgumentParser(
        prog=f"vxlan-overlayd {name}",
        description=words,
        epilog="exit status: 0 all is well, 1 something is wrong, 2 usage, 3 no agent's state",
        allow_abbrev=False,
    )
    made.add_argument("--output", choices=("table", "json"), default="table")
    made.add_argument(
        "--state-file",
        default=os.environ.get("FLANNELD_STATE_FILE") or memory.DEFAULT_FILE,
        help="what the agent writes (default: %(default)s)",
    )
    return made


def fail(command: str, error: Exception) -> int:
    """Say why there is nothing to tell."""
    print(f"vxlan-overlayd {command}: {error}", file=sys.stderr)
    return NO_STATE


def run(argv: list[str]) -> int:
    """Print the table, or JSON; the exit status."""
    options = parser("status", COMMANDS["status"]).parse_args(argv)
    try:
        state = asyncio.run(read_node_state(options.state_file))
    except (NoState, NetlinkError, OSError) as error:
        return fail("status", error)
    if options.output == "json":
        print(json.dumps(document(state), indent=2))
    else:
        show(state)
    return WHOLE if state.is_whole else BROKEN


def document(state: NodeState) -> dict[str, Any]:
    """All of it for scripts; keys are added to, and do not change."""
    return {
        "ok": state.is_whole,
        "agent": {"running": state.is_running, "written": state.written},
        "store": {"kind": state.store, "up": state.store_up, "problem": state.store_problem},
        "node": _node(state.node),
        "devices": [
            {
                "name": device.name,
                "vni": device.vni,
                "port": device.port,
                "mtu": device.mtu,
                "mac": device.mac,
                "up": device.is_up,
                "problem": device.problem,
            }
            for device in state.devices
        ],
        "peers": [
            {
                **_node(peer.node),
                "route": peer.route,
                "neighbour": peer.neighbour,
                "fdb": peer.forwarding,
                "ageSeconds": round(max(time.time() - peer.since, 0)),
                "problem": peer.problem,
            }
            for peer in state.peers
        ],
    }


def _node(node: Node) -> dict[str, Any]:
    return {
        "name": node.name,
        "subnets": [subnet.text() for subnet in node.peer.subnets],
        "endpoints": [
            {"publicIP": endpoint.public_ip, "vtepMAC": endpoint.mac}
            for endpoint in node.peer.endpoints
        ],
    }


def console() -> Console:
    """Colours and the width of the terminal where there is one; else plain and wide enough."""
    # What rich would take for its markup, or for an emoji, is part of a name, or of a MAC: ":cd:".
    if sys.stdout.isatty():
        return Console(markup=False, emoji=False)
    return Console(width=200, no_color=True, highlight=False, markup=False, emoji=False)


def plain_table(*columns: str) -> Table:
    """A table that reads well and can be cut by columns."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        table.add_column(column, overflow="fold")
    return table


def show(state: NodeState) -> None:
    """The table of nodes, what carries it, and what is wrong."""
    out = console()
    if state.is_running:
        out.print(f"agent running; {_store(state)}", soft_wrap=True)
    else:
        out.print(
            f"agent NOT RUNNING; it wrote what it knew {_age(state.written)} ago, and had the "
            f"nodes from the {state.store} store"
        )
    for device in state.devices:
        words = f"device {device.name}: VNI {device.vni}, UDP port {device.port}"
        if device.mtu:
            words += f", MTU {device.mtu}, {device.mac}, {'up' if device.is_up else 'DOWN'}"
        out.print(words + (f"; it {device.problem.upper()}" if device.problem else ""))
    table = _nodes(state, is_wide=True)
    if out.measure(table, options=out.options.update(max_width=1000)).minimum <= out.width:
        out.print(table)
        return
    out.print(_nodes(state, is_wide=False))
    for peer in state.peers:
        if peer.problem:
            out.print(f"{peer.node.name}: {peer.problem}")


def _store(state: NodeState) -> str:
    """What becomes of the agent's questions to its store, with the reason that /healthz has."""
    store, problem = f"the {state.store} store", state.store_problem
    if state.store_up:
        return f"{store} answers"
    if not problem:
        return f"{store} has not answered yet"
    if problem.startswith(AWAY):
        return f"{store} IS AWAY: {problem.removeprefix(AWAY)}"
    return f"it CANNOT GO BY {store}: {problem}"


def _nodes(state: NodeState, *, is_wide: bool) -> Table:
    """The table. Not wide: for small terminals, without VTEP MAC and PROBLEM."""
    rows = [
        ["NODE", "POD CIDR", "VTEP MAC", "UNDERLAY", "ROUTE", "NEIGH", "FDB", "AGE", "PROBLEM"],
        [*_cells(state.node), "-", "-", "-", "-", "(this node)"],
    ]
    for peer in state.peers:
        rows.append([*_cells(peer.node), *_signs(peer), _age(peer.since), peer.problem])
    if not is_wide:
        rows = [row[:2] + row[3:8] for row in rows]
    table = plain_table(*rows[0])
    for row in rows[1:]:
        table.add_row(*row)
    if is_wide:
        for column in table.columns[:-1]:
            column.no_wrap = True
    return table


def _cells(node: Node) -> list[str]:
    return [
        node.name,
        "\n".join(subnet.text() for subnet in node.peer.subnets),
        "\n".join(endpoint.mac for endpoint in node.peer.endpoints),
        "\n".join(endpoint.public_ip for endpoint in node.peer.endpoints),
    ]


def _signs(peer: PeerState) -> list[str]:
    words = {None: "-", True: "ok", False: "MISSING"}
    return [words[peer.route], words[peer.neighbour], words[peer.forwarding]]


def _age(since: float) -> str:
    """ "35s", "12m", "5h", "3d": since when it is known."""
    seconds = max(int(time.time() - since), 0)
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= 2 * length:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"
