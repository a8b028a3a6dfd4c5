# SPDX-License-Identifier: Apache-2.0
"""A runtime that does not take the result: the container is not attached, so nothing may stay."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable

import pytest

from tests.faults.configs import BRIDGE, network
from tests.rig.host import Host, Netns
from tests.rig.plugins import Runner, encode, environment


@pytest.mark.parametrize("kind", ["full", "broken pipe", "closed", "read-only descriptor"])
@pytest.mark.parametrize("plugin", ["bridge", "host-local"])
def test_result_that_cannot_be_written_is_undone(
    host: Host, netns: Callable[..., Netns], run_plugin: Runner, kind: str, plugin: str
) -> None:
    container = netns()
    before, inside = host.snapshot(), container.snapshot()
    stdout, argv = -1, [str(run_plugin.bin_dir / plugin)]
    if kind == "full":
        stdout = os.open("/dev/full", os.O_WRONLY)
    elif kind == "broken pipe":
        source, stdout = os.pipe()
        os.close(source)
    elif kind == "read-only descriptor":
        stdout = os.open("/dev/null", os.O_RDONLY)
    else:
        argv = ["sh", "-c", 'exec "$0" >&-', *argv]
    done = subprocess.run(
        argv,
        input=encode(network()),
        env=environment("ADD", run_plugin.bin_dir, container, "c1", "eth0"),
        stdout=stdout if stdout >= 0 else subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        timeout=60,
        check=False,
    )
    if stdout >= 0:
        os.close(stdout)
    assert done.returncode == 1, done.stderr
    host.assert_undone(before)
    assert inside.difference(container.snapshot()) == []


def test_delete_needs_no_stdout(
    host: Host, netns: Callable[..., Netns], run_plugin: Runner
) -> None:
    container = netns()
    before = host.snapshot()
    run_plugin("bridge", "ADD", network(), netns=container, container_id="c1").result()
    done = subprocess.run(
        ["sh", "-c", 'exec "$0" >&- 2>&-', run_plugin.bin_dir / "bridge"],
        input=encode(network()),
        env=environment("DEL", run_plugin.bin_dir, container, "c1", "eth0"),
        timeout=60,
        check=False,
    )
    assert done.returncode == 0
    host.assert_clean(before, BRIDGE)


def test_stdout_ends_with_the_process(
    host: Host, netns: Callable[..., Netns], run_plugin: Runner
) -> None:
    """No helper of DEL may keep the pipes: runtimes wait for their end."""
    container = netns()
    run_plugin("bridge", "ADD", network(), netns=container, container_id="c1").result()
    with subprocess.Popen(
        [run_plugin.bin_dir / "bridge"],
        env=environment("DEL", run_plugin.bin_dir, container, "c1", "eth0"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as process:
        assert process.stdin and process.stdout and process.stderr
        process.stdin.write(encode(network()))
        process.stdin.close()
        assert process.wait(30) == 0
        for stream in (process.stdout, process.stderr):
            os.set_blocking(stream.fileno(), False)
            assert stream.read() == b"", "the pipe is still held open"
    assert container.link_names() == {"lo"}
