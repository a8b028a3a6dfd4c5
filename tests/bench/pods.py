# SPDX-License-Identifier: Apache-2.0
"""Whole pod sandboxes on containerd, with the Go plugins, with ours, and with none at all."""

from __future__ import annotations

import dataclasses
import pathlib
import tempfile
import time
from collections.abc import Callable
from typing import Any

from tests.bench.measure import Sample
from tests.bench.rows import Bench, Row, Side, network
from tests.rig.containerd import Containerd

_NOTHING = """\
#!/bin/sh
read -r config
[ "$CNI_COMMAND" = ADD ] || exit 0
case $CNI_IFNAME in
lo) echo '{"cniVersion":"0.3.1"}' ;;
*) cat <<END ;;
{"cniVersion": "1.0.0", "interfaces": [{"name": "$CNI_IFNAME", "sandbox": "$CNI_NETNS"}],
 "ips": [{"address": "10.99.0.2/16", "interface": 0}]}
END
esac
"""


def nothing(directory: pathlib.Path) -> pathlib.Path:
    """A bin_dir whose plugins answer and do nothing: what is left is the runtime's own time."""
    directory.mkdir()
    for name in ("bridge", "loopback"):
        (directory / name).write_text(_NOTHING)
        (directory / name).chmod(0o755)
    return directory


@dataclasses.dataclass
class _Node:
    side: Side
    runtime: Containerd


def sandboxes(bench: Bench) -> list[Row]:
    """RunPodSandbox, StopPodSandbox and RemovePodSandbox, as a kubelet waits for them."""
    why = {
        "run": "the runtime's own share (namespace, shim, pause) is the same for both",
        "stop": "loopback DEL, then bridge DEL with prevResult",
        "remove": "bridge DEL once more, without namespace and prevResult",
    }
    calls = {"run": "RunPodSandbox", "stop": "StopPodSandbox", "remove": "RemovePodSandbox"}
    rows = {
        (verb, columns): Row(
            f"pod-{verb}-{columns[1].partition(' ')[0]}",
            f"{calls[verb]}, {columns[1]} against {columns[0]}",
            reason,
            columns=columns,
        )
        for verb, reason in why.items()
        for columns in (("Go", "ours"), ("Go", "nothing at all"))
    }
    with tempfile.TemporaryDirectory(prefix="adder-bench-", dir="/run") as scratch:
        root = pathlib.Path(scratch)
        directories = {
            "Go": bench.go,
            "ours": bench.ours,
            "nothing at all": nothing(root / "nothing"),
        }
        nodes = {}
        try:
            for number, (name, directory) in enumerate(directories.items()):
                nodes[name] = _start(name, directory, root / f"node{number}")
            _rounds(bench, nodes, rows)
        finally:
            for node in nodes.values():
                node.side.enter()
                node.runtime.close()
    return list(rows.values())


def _start(name: str, directory: pathlib.Path, scratch: pathlib.Path) -> _Node:
    config = network(True)
    side = Side(name.partition(" ")[0].lower(), directory, config)
    side.enter()
    plugin = {key: value for key, value in config.items() if key != "cniVersion"}
    listed = {"cniVersion": "1.0.0", "name": side.config["name"], "plugins": [plugin]}
    return _Node(side, Containerd(scratch, directory, listed))


def _rounds(
    bench: Bench, nodes: dict[str, _Node], rows: dict[tuple[str, tuple[str, str]], Row]
) -> None:
    by_side = {node.side.name: (name, node.runtime) for name, node in nodes.items()}
    pod = 0
    for record, side in bench.alternate(*(node.side for node in nodes.values())):
        name, runtime = by_side[side.name]
        pod += 1
        walls = {}
        walls["run"], sandbox = _timed(lambda: runtime.run(f"pod{pod}"))  # noqa: B023
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
