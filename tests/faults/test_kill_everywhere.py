# SPDX-License-Identifier: Apache-2.0
"""Each plugin ended at its every system call: the repeated DEL or GC leaves nothing.

By default before and after every call that may have an effect; ADDER_EVERY_CALL=1 for every call.
The first ADD of a host, which makes what containers share, has a new host for each moment and is
therefore sampled by default.
"""

from __future__ import annotations

import pathlib
import signal
from collections.abc import Callable
from typing import Any

import pytest

from tests.faults import profiled
from tests.faults.first import FirstAdd
from tests.faults.moments import EVERY_CALL
from tests.faults.sweep import Runtime, State, Sweep
from tests.rig.conformance import known_profiles
from tests.rig.host import Host

ROOT = pathlib.Path(__file__).resolve().parents[2]
#: Lists that make something for their first container and keep it; of the moments of that ADD,
#: one in so many.
FIRST = {"bridge": 5, "vxlan-overlay": 5, "whole": 20}
BY_NAME = profiled.every_list()


def test_every_plugin_is_interrupted() -> None:
    folders = {path.parents[1].name for path in (ROOT / "plugins").glob("*/cni_*/__init__.py")}
    assert folders == {plugin["type"] for each in BY_NAME.values() for plugin in each.plugins}


def sweeps() -> list[Any]:
    """(list, verb, signal): by default SIGTERM for the ADD of single plugins only."""
    return [
        pytest.param(name, verb, number, id=f"{name}-{verb}-{number.name}")
        for name in BY_NAME
        for verb in BY_NAME[name].verbs
        for number in (signal.SIGKILL, signal.SIGTERM)
        if EVERY_CALL or number == signal.SIGKILL or (verb == "ADD" and name != "whole")
    ]


def first_sweeps() -> list[Any]:
    """(list, signal): by default SIGKILL."""
    return [
        pytest.param(name, number, id=f"{name}-{number.name}")
        for name in FIRST
        for number in (signal.SIGKILL, signal.SIGTERM)
        if EVERY_CALL or number == signal.SIGKILL
    ]


@pytest.mark.parametrize(("name", "verb", "number"), sweeps())
def test_nothing_is_left(
    host: Host,
    bin_dir: pathlib.Path,
    record_property: Callable[[str, object], None],
    name: str,
    verb: str,
    number: signal.Signals,
) -> None:
    network = BY_NAME[name]
    host.expect_leftovers("what containers share stays; each sweep compares what is theirs")
    runtime = Runtime(host, bin_dir, network)
    positions = network.interrupted or range(len(network.plugins))
    moments = [Sweep(runtime, position, verb, number).run() for position in positions]
    record_property("moments", sum(moments))
    assert all(moments), f"{verb} was never interrupted: {moments}"


@pytest.mark.parametrize(("name", "number"), first_sweeps())
def test_nothing_is_left_of_the_first(
    bin_dir: pathlib.Path,
    record_property: Callable[[str, object], None],
    name: str,
    number: signal.Signals,
) -> None:
    """The ADD that makes the bridge, the VXLAN device, the tables: on an empty host each time."""
    network, stride = BY_NAME[name], 1 if EVERY_CALL else FIRST[name]
    moments = [
        FirstAdd(bin_dir, network, position, number).run(stride)
        for position in range(len(network.plugins))
    ]
    record_property("moments", sum(moments))
    assert all(moments), f"ADD was never interrupted: {moments}"


@pytest.mark.parametrize("type", ["macvlan", "host-device", "static", "bandwidth", "sbr"])
def test_a_profile_is_enough(host: Host, bin_dir: pathlib.Path, type: str) -> None:
    """A plugin that no list names is called as its profile has it, and leaves nothing."""
    host.expect_leftovers("the interfaces on which such a list stands")
    network = profiled.list_of(known_profiles(ours=True)[type])
    runtime = Runtime(host, bin_dir, network)
    resident, container = runtime.container(), runtime.container()
    runtime.add(resident)[0].result()
    if network.alone:
        runtime.delete(resident)[0].succeeded()
    state = State(host, network.keeps, container.netns, resident.netns)
    runtime.add(container)[0].result()
    runtime.delete(container)[0].succeeded()
    state.assert_same(type)
