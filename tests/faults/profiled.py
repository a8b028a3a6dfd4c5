# SPDX-License-Identifier: Apache-2.0
"""Lists for plugins that `lists` does not name, from their profiles for the conformance suite.

So a plugin in a new folder is interrupted too. One that needs more than a profile says, such as
interfaces that stay, gets a list of its own there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from cni_conformance.profiles import Profile

from tests.faults import bases
from tests.faults.lists import BY_NAME, LISTS, NetworkList
from tests.rig.conformance import known_profiles
from tests.rig.host import Host, Netns

#: What a profile may leave open. The device and the port are there once, so for one container.
_OPEN = {"${device}": "spare0", "${master}": "under0", "${ifname}": "eth0", "${hostPort}": 20000}
_ONCE = ("${device}", "${hostPort}")


def list_of(profile: Profile) -> NetworkList:
    """A list of one plugin, on what plugins of its kind stand on."""
    text = json.dumps(profile.config)
    return NetworkList(
        profile.type,
        ({**_filled(profile.config), "type": profile.type},),
        bases.veth if profile.kind == "chained" else _interfaces,
        alone=any(name in text for name in _ONCE),
        verbs=("ADD", "DEL") if profile.stateless else ("ADD", "DEL", "GC"),
    )


def every_list() -> Mapping[str, NetworkList]:
    """Those of `lists`, and one for each further type that has a profile in its plugin's folder
    or in spec/vectors, if it is one of ours."""
    named = {plugin["type"] for each in LISTS for plugin in each.plugins}
    found = {t: list_of(p) for t, p in known_profiles(ours=True).items() if t not in named}
    return {**found, **BY_NAME}


def _interfaces(host: Host, container: Netns, number: int) -> None:
    bases.underlay(host, container, number)
    bases.spare_device(host, container, number)


def _filled(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _filled(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_filled(inner) for inner in value]
    if not isinstance(value, str):
        return value
    if value in _OPEN:
        return _OPEN[value]
    for name, text in _OPEN.items():
        value = value.replace(name, str(text))
    return value
