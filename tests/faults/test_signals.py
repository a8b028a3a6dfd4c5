# SPDX-License-Identifier: Apache-2.0
"""Plugins that are killed at any moment."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable

import pytest

from tests.faults.configs import BRIDGE, network
from tests.rig.host import Host, Netns
from tests.rig.plugins import Runner, encode, environment, reply

#: Moments spread over the whole duration of an ADD.
MOMENTS = 40


def start(runner: Runner, command: str, container: Netns) -> subprocess.Popen[bytes]:
    process = subprocess.Popen(
        [runner.bin_dir / "bridge"],
        env=environment(command, runner.bin_dir, container, "c1", "eth0"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdin is not None
    process.stdin.write(encode(network()))
    process.stdin.close()
    process.stdin = None
    return process


def duration(runner: Runner, container: Netns) -> float:
    """Seconds that an undisturbed ADD takes after its start; the shortest of a few.

    What starting the process costs the test itself does not count: the moments begin after it.
    """
    shortest = 60.0
    for _ in range(5):
        process = start(runner, "ADD", container)
        began = time.monotonic()
        process.communicate(timeout=60)
        shortest = min(shortest, time.monotonic() - began)
        runner("bridge", "DEL", network(), netns=container, container_id="c1").succeeded()
    return shortest


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_interrupted_add_undoes_itself(
    host: Host, netns: Callable[..., Netns], run_plugin: Runner, number: signal.Signals
) -> None:
    container = netns()
    before, inside = host.snapshot(), container.snapshot()
    whole = duration(run_plugin, container)
    interrupted = 0
    for moment in range(MOMENTS):
        process = start(run_plugin, "ADD", container)
        time.sleep(whole * moment / MOMENTS)
        process.send_signal(number)
        stdout, stderr = process.communicate(timeout=60)
        if process.returncode == 0:
            run_plugin("bridge", "DEL", network(), netns=container, container_id="c1").succeeded()
        elif process.returncode == 1 and stdout:
            # Noticed: the runtime is told, and everything is gone without a DEL.
            reply(1, stdout, stderr).failed(11, "signal")
            interrupted += 1
        else:
            # Before anything was done the signal ends the process as it ends any other.
            started = process.returncode != -number
            assert not started or b"KeyboardInterrupt" in stderr, (process.returncode, stderr)
        host.assert_clean(before, BRIDGE)
        assert inside.difference(container.snapshot()) == []
    assert interrupted, "no signal came at a moment that mattered"


def test_killed_add_is_cleaned_by_del(
    host: Host, netns: Callable[..., Netns], run_plugin: Runner
) -> None:
    container = netns()
    before, inside = host.snapshot(), container.snapshot()
    whole = duration(run_plugin, container)
    killed = 0
    for moment in range(MOMENTS):
        process = start(run_plugin, "ADD", container)
        time.sleep(whole * moment / MOMENTS)
        process.kill()
        process.communicate(timeout=60)
        killed += process.returncode == -signal.SIGKILL
        netns_path = container if moment % 2 else ""
        run_plugin("bridge", "DEL", network(), netns=netns_path, container_id="c1").succeeded()
        host.assert_clean(before, BRIDGE)
        if moment % 2:
            assert inside.difference(container.snapshot()) == []
    assert killed > MOMENTS // 4, "too few kills came before the end"


def test_killed_del_is_finished_by_the_next(
    host: Host, netns: Callable[..., Netns], run_plugin: Runner
) -> None:
    container = netns()
    before = host.snapshot()
    whole = duration(run_plugin, container)
    for moment in range(MOMENTS // 2):
        run_plugin("bridge", "ADD", network(), netns=container, container_id="c1").result()
        process = start(run_plugin, "DEL", container)
        time.sleep(whole * moment * 2 / MOMENTS)
        process.kill()
        process.communicate(timeout=60)
        run_plugin("bridge", "DEL", network(), netns=container, container_id="c1").succeeded()
        host.assert_clean(before, BRIDGE)


def test_add_after_a_killed_add_succeeds(
    host: Host, netns: Callable[..., Netns], run_plugin: Runner
) -> None:
    """With the DEL between them that the specification demands of a runtime."""
    container = netns()
    whole = duration(run_plugin, container)
    for moment in range(MOMENTS // 2):
        process = start(run_plugin, "ADD", container)
        time.sleep(whole * moment * 2 / MOMENTS)
        process.kill()
        process.communicate(timeout=60)
        run_plugin("bridge", "DEL", network(), container_id="c1").succeeded()
        run_plugin("bridge", "ADD", network(), netns=container, container_id="c1").result()
        run_plugin("bridge", "DEL", network(), netns=container, container_id="c1").succeeded()
