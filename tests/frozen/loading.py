# SPDX-License-Identifier: Apache-2.0
"""Which modules a frozen plugin has loaded when it ends, for every verb.

`python -m tests.frozen.loading` (as root, after `make build`) writes imports.json beside this
file: review its difference, as every new name in it costs each pod's start some microseconds.
"""

from __future__ import annotations

import json
import os
import pathlib
import tempfile
from typing import Any

from tests.rig import isolation
from tests.rig.host import Host
from tests.rig.plugins import ROOT, Runner

LIST = pathlib.Path(__file__).with_name("imports.json")
BIN = pathlib.Path(os.environ.get("ADDER_BIN_DIR", ROOT / "build/bin"))

_IPAM = {
    "type": "host-local",
    "ranges": [[{"subnet": "10.207.0.0/24"}], [{"subnet": "fd07::/64"}]],
}
_BRIDGE = {"type": "bridge", "bridge": "load0", "isDefaultGateway": True, "ipam": _IPAM}
CONFIGS: dict[str, dict[str, Any]] = {
    "loopback": {"type": "loopback"},
    "host-local": {"type": "host-local", "ipam": _IPAM},
    "bridge": _BRIDGE,
    "bridge with ipMasq": {**_BRIDGE, "ipMasq": True, "ipMasqBackend": "nftables"},
}
VERBS = ("VERSION", "STATUS", "ADD", "CHECK", "DEL", "GC")


def loaded(host: Host, scenario: str) -> dict[str, list[str]]:
    """The modules of each of VERBS, in one life of an attachment: its second one on this host,
    so that what only the first pod of a node needs is not counted."""
    runner = Runner(BIN)
    config = {"cniVersion": "1.1.0", "name": "loading", **CONFIGS[scenario]}
    with tempfile.TemporaryDirectory() as scratch:
        first = host.netns()
        runner(config["type"], "ADD", config, netns=first, container_id="first").result()
        container = host.netns()
        found = {}
        for verb in VERBS:
            report = pathlib.Path(scratch) / verb
            reply = runner(
                config["type"],
                verb,
                {**config, "cni.dev/valid-attachments": []} if verb == "GC" else config,
                netns=container,
                ADDER_MODULES=str(report),
            )
            assert reply.rc == 0, f"{scenario} {verb}: {reply}"
            if verb == "ADD":
                config["prevResult"] = reply.json
            if verb == "DEL":
                del config["prevResult"]
            found[verb] = sorted(set(report.read_text().split()))
    return found


def main() -> None:
    """Write the list anew."""
    isolation.enter()
    lists = {}
    for scenario in CONFIGS:
        host = Host()
        try:
            lists[scenario] = loaded(host, scenario)
        finally:
            host.close()
    LIST.write_text(json.dumps(lists, indent=1) + "\n")
    for scenario, verbs in lists.items():
        print(scenario, {verb: len(names) for verb, names in verbs.items()})


if __name__ == "__main__":
    main()
