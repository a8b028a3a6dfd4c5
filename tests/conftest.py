# SPDX-License-Identifier: Apache-2.0
"""Fixtures for all tests; tests/rig has what they are made of.

A test that asks for `host`, `netns` or `run_plugin` runs in a network namespace of its own with
empty /run, /var/lib/cni and /etc/cni, and is marked `root`.
"""

from __future__ import annotations

import os
import pathlib
import signal
from collections.abc import Callable, Generator, Iterator

import pytest

from libcni import interrupt, orphans
from tests.rig import isolation, plugins
from tests.rig.host import Host, Netns

_PASSED = pytest.StashKey[bool]()
_NEED_ROOT = {"host", "netns", "run_plugin"}


def pytest_configure(config: pytest.Config) -> None:
    """Isolate the process that runs tests: pytest itself, or each xdist worker."""
    config.addinivalue_line("markers", "root: needs root and network namespaces")
    config.addinivalue_line("markers", "bench: measures; not part of `make test`")
    config.addinivalue_line(
        "markers", "expect_leftovers(reason): the host is not compared at the end of the test"
    )
    distributes = bool(getattr(config.option, "numprocesses", None))
    is_worker = hasattr(config, "workerinput")
    if os.geteuid() == 0 and (is_worker or not distributes):
        isolation.enter()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark what needs root; without root it is skipped."""
    for item in items:
        if _NEED_ROOT & set(getattr(item, "fixturenames", ())):
            item.add_marker("root")
        if os.geteuid() != 0 and item.get_closest_marker("root"):
            item.add_marker(pytest.mark.skip(reason="needs root"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Let `host` know how the test ended."""
    report = yield
    if report.when == "call":
        item.stash[_PASSED] = report.passed
    return report


@pytest.fixture(autouse=True)
def nothing_stays_held() -> Iterator[None]:
    """Close what plugins called in this process hold: a plugin's process would end by now.

    Such a socket would keep the test's namespace, too.
    """
    yield
    while orphans._held:
        orphans._held.popitem()[1].close()


@pytest.fixture(autouse=True)
def signals_are_noticed_as_before() -> Iterator[None]:
    """Undo what plugins called in this process do to signals, which they have until they end.

    What later tests start would ignore them, and a test that sends one would wait for ever.
    """
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    interrupt._pending = interrupt._waiting = 0
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def bin_dir(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The directory of the plugins under test: $ADDER_BIN_DIR, a current build, or launchers."""
    return plugins.our_bin_dir(tmp_path_factory.mktemp("bin"))


@pytest.fixture(scope="session")
def go_bin_dir() -> pathlib.Path:
    """The directory of Debian's Go plugins, which `make setup` installs."""
    assert (plugins.GO_BIN_DIR / "bridge").exists(), "apt-get install containernetworking-plugins"
    return plugins.GO_BIN_DIR


@pytest.fixture
def host(request: pytest.FixtureRequest) -> Iterator[Host]:
    """An empty host of the test's own.

    After a test that passed, what it attached by `run_plugin` is deleted, its namespaces go, and
    the host is compared with what it was: links, addresses, routes, rules, neighbours, FDB,
    nftables, sysctls, files. What a test makes by hand it removes, or it says why not
    (`host.expect_leftovers(reason)`, or the mark of that name).
    """
    made = Host()
    for mark in request.node.iter_markers("expect_leftovers"):
        made.expect_leftovers(*mark.args)
    try:
        yield made
        if request.node.stash.get(_PASSED, False):
            made.finish()
    finally:
        made.close()


@pytest.fixture
def netns(host: Host) -> Callable[..., Netns]:
    """Factory of container namespaces: netns() or netns("name")."""
    return host.netns


@pytest.fixture
def run_plugin(host: Host, bin_dir: pathlib.Path) -> plugins.Runner:
    """run_plugin(type, command, config, netns=..., ...) -> Reply(rc, json, stderr)."""
    return plugins.Runner(bin_dir, host)
