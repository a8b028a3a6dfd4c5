# SPDX-License-Identifier: Apache-2.0
"""The variables alone, with a configuration that is good: `request` less the stdin."""

from __future__ import annotations

from collections.abc import Iterator

from tests.fuzz.target import Target
from tests.fuzz.targets import request
from tests.rig import examples

#: What CNI_ARGS may hold for one plugin or another.
_ARGUMENTS = (
    "IP=10.1.2.3",
    "IP=10.1.2.3/24;GATEWAY=10.1.2.1;IgnoreUnknown=true",
    "MAC=02:00:00:00:00:01;K8S_POD_NAME=a;IgnoreUnknown=1",
    "IgnoreUnknown=0;IP=fd00::3/64",
)


def run(data: bytes) -> None:
    """Call the plugin with its first example."""
    head = data.partition(b"\n\n")[0]
    type, _, _ = request.parse(head)
    path = examples.paths("valid", type)[0]
    request.run(head + b"\n\n" + path.read_bytes())


def seeds() -> Iterator[bytes]:
    """Each verb of some plugins with arguments that mean something."""
    for number, seed in enumerate(request.seeds()):
        head = seed.partition(b"\n\n")[0].decode()
        if number % 7 == 0:
            arguments = _ARGUMENTS[number // 7 % len(_ARGUMENTS)]
            yield head.replace("CNI_ARGS=", f"CNI_ARGS={arguments}").encode()


TARGET = Target(run, seeds)
