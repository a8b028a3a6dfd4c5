# SPDX-License-Identifier: Apache-2.0
"""What a frozen plugin loads, by really running every verb: nothing beyond a reviewed list."""

from __future__ import annotations

import json

import pytest

from tests.frozen import loading
from tests.rig.host import Host
from tests.unit.test_layering import BANNED

pytestmark = pytest.mark.frozen

#: Each of these would cost a pod more than all of a plugin's own work.
NEVER = BANNED | {"pyroute2", "jsonschema", "netaddr", "rich", "importlib", "encodings", "codecs"}
NEVER |= {
    "io",
    "site",
    "zipimport",
    "_ctypes",
    "ctypes",
    "warnings",
    "traceback",
    "libcni.cnitool",
}
NEVER |= {"libcni.conf", "libcni.api", "libcni.cache"}


@pytest.mark.parametrize("scenario", loading.CONFIGS)
def test_nothing_beyond_the_list_is_loaded(host: Host, scenario: str) -> None:
    allowed = json.loads(loading.LIST.read_text())[scenario]
    for verb, names in loading.loaded(host, scenario).items():
        assert not NEVER & set(names), f"{scenario} {verb}"
        more = sorted(set(names) - set(allowed[verb]))
        assert not more, f"{scenario} {verb} loads {more}: see tests/frozen/loading.py"


def test_the_list_has_every_scenario_and_nothing_banned() -> None:
    lists = json.loads(loading.LIST.read_text())
    assert lists.keys() == loading.CONFIGS.keys()
    for verbs in lists.values():
        assert tuple(verbs) == loading.VERBS
        for names in verbs.values():
            assert not NEVER & set(names)
            assert {"posix", "sys", "libcni.skel.main"} <= set(names)
