# SPDX-License-Identifier: Apache-2.0
"""Whole pod sandboxes on containerd, with the Go plugins, with ours, and with none at all."""

from __future__ import annotations

import dataclasses
import pathlib
import tempfile
import time
from collections.abc import Callable
from typing import Any

from tests.bench.chain import plugins_of_a_pod
from tests.bench.measure import Sample
from tests.bench.rows import Bench, Row, Side, network
from tests.rig.containerd import Containerd

_NOTHING = """\
#!/bin/sh
read -r config
[ "$CNI_COMMAND" = ADD ] || exit 0
case $CNI_IFNAME in
lo) echo '{"cniVersion":"0.3.1"}' ;;
*) echo "{\\"cniVersion\\": \\"1.0.0\\", \\
 \\"interfaces\\": [{\\"name\\": \\"$CNI_IFNAME\\", \\"sandbox\\": \\"$CNI_NETNS\\"}], \\
 \\"ips\\": [{\\"address\\": \\"10.99.0.2/16\\", \\"interface\\": 0}]}" ;;
esac
"""
_CALLS = {"run": "RunPodSandbox", "stop": "StopPodSandbox", "remove": "RemovePodSandbox"}
_PORTS = [("TCP", 20080, 80), ("TCP", 20443, 443)]


@dataclasses.dataclass(frozen=True)
class _Kind:
    """What the pods get. key: what the rows' keys begin with. words: what is in their titles."""

    key: str
    words: str
    plugins: list[dict[str, Any]]
    ports: list[tuple[str, int, int]]


def nothing(directory: pathlib.Path, names: list[str]) -> pathlib.Path:
    """A bin_dir whose plugins answer and do nothing: what is left is the runtime's own time."""
    directory.mkdir()
    for name in ["loopback", *names]:
        (directory / name).write_text(_NOTHING)
        (directory / name).chmod(0o755)
    return directory


@dataclasses.dataclass
class _Node:
    side: Side
    runtime: Containerd


def bridge(bench: Bench) -> list[Row]:
    """Pods that have a bridge with ipMasq."""
    plugin = {key: value for key, value in network(True).items() if key != "cniVersion"}
    return _sandboxes(bench, _Kind("pod", "bridge", [plugin], []))


def chain(bench: Bench) -> list[Row]:
    """Pods with two published ports, and what nodes with containerd have for them."""
    plugins = plugins_of_a_pod()
    return _sandboxes(bench, _Kind("chain-pod", "bridge, portmap, firewall", plugins, _PORTS))


def _sandboxes(bench: Bench, kind: _Kind) -> list[Row]:
    """RunPodSandbox, StopPodSandbox and RemovePodSandbox, as a kubelet waits for them."""
    why = {
        "run": "the runtime's own share (namespace, shim, pause) is the same for both",
        "stop": "loopback DEL, then the list's in reverse order, with prevResult",
        "remove": "the list's DEL once more, without namespace and prevResult",
    }
    rows = {
        (verb, columns): Row(
            f"{kind.key}-{verb}-{columns[1].partition(' ')[0]}",
            f"{_CALLS[verb]} ({kind.words}), {columns[1]} against {columns[0]}",
            reason,
            columns=columns,
        )
        for verb, reason in why.items()
        for columns in (("Go", "ours"), ("Go", "nothing at all"))
    }
    with tempfile.TemporaryDirectory(prefix="adder-bench-", dir="/run") as scratch:
        root = pathlib.Path(scratch)
        names = [str(plugin["type"]) for plugin in kind.plugins]
        directories = {
            "Go": bench.go,
            "ours": bench.ours,
            "nothing at all": nothing(root / "nothing", names),
        }
        nodes = {}
        try:
            for number, (name, directory) in enumerate(directories.items()):
                nodes[name] = _start(name, directory, root / f"node{number}", kind)
            _rounds(bench, nodes, rows, kind)
        finally:
            for node in nodes.values():
                node.side.enter()
                node.runtime.close()
    return list(rows.values())


def _start(name: str, directory: pathlib.Path, scratch: pathlib.Path, kind: _Kind) -> _Node:
    side = Side(name.partition(" ")[0].lower(), directory, network(True))
    side.enter()
    listed = {"cniVersion": "1.0.0", "name": side.config["name"], "plugins": kind.plugins}
    return _Node(side, Containerd(scratch, directory, listed))


def _rounds(
    bench: Bench,
    nodes: dict[str, _Node],
    rows: dict[tuple[str, tuple[str, str]], Row],
    kind: _Kind,
) -> None:
    by_side = {node.side.name: (name, node.runtime) for name, node in nodes.items()}
    pod = 0
    for record, side in bench.alternate(*(node.side for node in nodes.values())):
        name, runtime = by_side[side.name]
        pod += 1
        walls = {}
        walls["run"], sandbox = _timed(
            lambda: runtime.run(f"pod{pod}", ports=kind.ports)  # noqa: B023
        )
        if not runtime.addresses(sandbox)[0].startswith("10.99."):
            raise RuntimeError(f"{name}: the pod has {runtime.addresses(sandbox)}")
        walls["stop"], _ = _timed(lambda: runtime.stop(sandbox))  # noqa: B023
        walls["remove"], _ = _timed(lambda: runtime.remove(sandbox))  # noqa: B023
        if not record:
            continue
        for (verb, columns), row in rows.items():
            if name == columns[0]:
                row.baseline.append(Sample(walls[verb], 0.0))
            elif name == columns[1]:
                row.ours.append(Sample(walls[verb], 0.0))


def _timed(function: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    value = function()
    return time.perf_counter() - started, value


GROUPS: dict[str, Callable[[Bench], list[Row]]] = {"pods": bridge, "chain-pods": chain}
