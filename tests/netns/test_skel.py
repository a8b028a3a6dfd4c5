# SPDX-License-Identifier: Apache-2.0
"""The plugin kit from outside, by the smallest plugin: streams, signals, time-outs, VERSION."""

from __future__ import annotations

import json
import os
import pathlib
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from libcni import jsontext
from libcni.about import NAME, VERSION
from libcni.version import SUPPORTED
from tests.rig.host import Host, Netns
from tests.rig.plugins import Runner, encode, environment, reply

NetnsFactory = Callable[..., Netns]
CONFIG = {"cniVersion": "1.1.0", "name": "cni-loopback", "type": "loopback"}


def is_up(container: Netns) -> bool:
    return "LOOPBACK,UP" in container.run("ip", "link", "show", "dev", "lo").stdout


def variables(runner: Runner, command: str, container: Netns) -> dict[str, str]:
    return environment(command, runner.bin_dir, container, "c1", "lo")


def shell(
    runner: Runner, redirection: str, env: dict[str, str], type: str = "loopback"
) -> subprocess.CompletedProcess[bytes]:
    """Run the plugin with its streams redirected by the shell; the configuration is on stdin."""
    return subprocess.run(
        ["bash", "-c", f'exec "$0" {redirection}', str(runner.bin_dir / type)],
        input=encode(CONFIG),
        env=env,
        capture_output=True,
        timeout=30,
        check=False,
    )


@pytest.fixture
def endless() -> Iterator[tuple[int, int]]:
    """A pipe (reading end, writing end) that stays open."""
    source, feed = os.pipe()
    yield source, feed
    for fd in (source, feed):
        os.close(fd)


# ---- stdout that takes nothing


@pytest.mark.parametrize(
    "redirection", [">&-", ">/dev/full", "1</dev/null", ">&- 2>&-", ">&- 2>/dev/full"]
)
def test_a_result_that_nobody_takes_is_undone(
    run_plugin: Runner, netns: NetnsFactory, redirection: str
) -> None:
    container = netns()
    done = shell(run_plugin, redirection, variables(run_plugin, "ADD", container))
    assert done.returncode == 1
    assert not done.stdout
    assert not is_up(container)


def test_a_reader_that_went_away_has_the_result_undone(
    run_plugin: Runner, netns: NetnsFactory
) -> None:
    container = netns()
    source, feed = os.pipe()
    os.close(source)
    done = subprocess.run(
        [run_plugin.bin_dir / "loopback"],
        input=encode(CONFIG),
        env=variables(run_plugin, "ADD", container),
        stdout=feed,
        stderr=subprocess.PIPE,
        timeout=30,
        check=False,
    )
    os.close(feed)
    assert done.returncode == 1
    assert not is_up(container)


def test_all_streams_closed_is_an_error_and_not_a_crash(
    run_plugin: Runner, netns: NetnsFactory
) -> None:
    container = netns()
    env = variables(run_plugin, "ADD", container)
    assert shell(run_plugin, "<&- >&- 2>&-", env).returncode == 1
    assert not is_up(container)


def test_delete_needs_neither_stdout_nor_stderr(run_plugin: Runner, netns: NetnsFactory) -> None:
    container = netns()
    run_plugin("loopback", "ADD", CONFIG, netns=container).result()
    done = shell(run_plugin, ">&- 2>&-", variables(run_plugin, "DEL", container))
    assert done.returncode == 0
    assert not is_up(container)


def test_what_is_opened_never_poses_as_a_standard_stream(
    run_plugin: Runner, netns: NetnsFactory, tmp_path: pathlib.Path
) -> None:
    """With stdout closed, host-local's next open file would be 1, and get the result."""
    config = {
        **CONFIG,
        "ipam": {"type": "host-local", "subnet": "10.9.0.0/24", "dataDir": str(tmp_path)},
    }
    done = subprocess.run(
        ["bash", "-c", 'exec "$0" >&-', str(run_plugin.bin_dir / "host-local")],
        input=encode(config),
        env=variables(run_plugin, "ADD", netns()),
        stderr=subprocess.PIPE,
        timeout=30,
        check=False,
    )
    assert done.returncode == 1
    for path in tmp_path.rglob("*"):
        assert path.is_dir() or b"cniVersion" not in path.read_bytes()
        assert not path.name.startswith("10."), "the reservation stayed"


# ---- stdin


def test_closed_stdin_is_an_error(run_plugin: Runner, netns: NetnsFactory) -> None:
    container = netns()
    done = shell(run_plugin, "<&-", variables(run_plugin, "ADD", container))
    reply(done.returncode, done.stdout, done.stderr).failed(5, "stdin")
    assert not is_up(container)


def test_a_directory_on_stdin_is_an_error(run_plugin: Runner, netns: NetnsFactory) -> None:
    done = shell(run_plugin, "</", variables(run_plugin, "ADD", netns()))
    assert done.returncode == 1
    if b"init_sys_streams" not in done.stderr:  # an ordinary interpreter does not even start
        reply(done.returncode, done.stdout, done.stderr).failed(5, "stdin", "directory")


def test_stdin_from_a_file(
    run_plugin: Runner, netns: NetnsFactory, tmp_path: pathlib.Path
) -> None:
    (tmp_path / "config").write_bytes(encode(CONFIG))
    container = netns()
    done = shell(run_plugin, f"<{tmp_path}/config", variables(run_plugin, "ADD", container))
    reply(done.returncode, done.stdout, done.stderr).result()
    assert is_up(container)


@pytest.mark.parametrize("start", [b"", b'{"cniVersion":', encode(CONFIG)])
def test_stdin_that_never_closes(
    run_plugin: Runner, netns: NetnsFactory, endless: tuple[int, int], start: bytes
) -> None:
    container = netns()
    source, feed = endless
    os.write(feed, start)
    began = time.monotonic()
    done = subprocess.run(
        [run_plugin.bin_dir / "loopback"],
        env={**variables(run_plugin, "ADD", container), "CNI_STDIN_TIMEOUT": "1"},
        stdin=source,
        capture_output=True,
        timeout=30,
        check=False,
    )
    assert 0.9 < time.monotonic() - began < 5
    error = reply(done.returncode, done.stdout, done.stderr).failed(5, "stdin", "1 s")
    assert f"{len(start)} bytes" in error["details"]
    assert not is_up(container)


def test_the_environment_is_judged_before_stdin(
    run_plugin: Runner, netns: NetnsFactory, endless: tuple[int, int]
) -> None:
    """A runtime's mistake is told at once, not after the time-out."""
    env = variables(run_plugin, "ADD", netns()) | {"CNI_IFNAME": "../x"}
    done = subprocess.run(
        [run_plugin.bin_dir / "loopback"],
        env=env,
        stdin=endless[0],
        capture_output=True,
        timeout=30,
        check=False,
    )
    reply(done.returncode, done.stdout, done.stderr).failed(4, "CNI_IFNAME")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_while_waiting_for_stdin_changes_nothing(
    run_plugin: Runner, netns: NetnsFactory, endless: tuple[int, int], number: signal.Signals
) -> None:
    container = netns()
    os.write(endless[1], encode(CONFIG)[:20])
    process = subprocess.Popen(
        [run_plugin.bin_dir / "loopback"],
        env=variables(run_plugin, "ADD", container),
        stdin=endless[0],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # A shell's job in the background ignores SIGINT, and so would all that it starts.
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
    )
    time.sleep(0.3)
    process.send_signal(number)
    stdout, _ = process.communicate(timeout=10)
    assert process.returncode != 0
    assert stdout == b"" or json.loads(stdout)["code"] == 11
    assert not is_up(container)


# ---- VERSION


def ask_version(runner: Runner, type: str = "loopback", **streams: Any) -> dict[str, Any]:
    """VERSION in an environment with nothing else."""
    done = subprocess.run(
        [runner.bin_dir / type],
        env={"CNI_COMMAND": "VERSION"},
        capture_output=True,
        timeout=20,  # less than a plugin waits for stdin
        check=False,
        **streams,
    )
    assert done.returncode == 0, done
    assert done.stderr == b""
    answer: dict[str, Any] = json.loads(done.stdout)
    assert answer["supportedVersions"] == list(SUPPORTED)
    assert set(answer) == {"cniVersion", "supportedVersions"}
    return answer


@pytest.mark.parametrize("type", ["loopback", "bridge", "host-local"])
def test_version_without_stdin(run_plugin: Runner, type: str) -> None:
    assert ask_version(run_plugin, type, stdin=subprocess.DEVNULL)["cniVersion"] == "1.1.0"


@pytest.mark.parametrize("start", [b"", b'{"cniVersion"', b"\xff", b"[]"])
def test_version_with_stdin_that_never_closes(
    run_plugin: Runner, endless: tuple[int, int], start: bytes
) -> None:
    os.write(endless[1], start)
    assert ask_version(run_plugin, stdin=endless[0])["cniVersion"] == "1.1.0"


def test_version_with_closed_stdin(run_plugin: Runner) -> None:
    done = shell(run_plugin, "<&-", {"CNI_COMMAND": "VERSION"})
    assert done.returncode == 0
    assert json.loads(done.stdout)["supportedVersions"] == list(SUPPORTED)


@pytest.mark.parametrize(
    ("config", "version"),
    [*((f'{{"cniVersion": "{v}"}}', v) for v in SUPPORTED)]
    + [('{"cniVersion": "9.9.9"}', "1.1.0"), ('{"cniVersion": 7}', "1.1.0"), ("{", "1.1.0")]
    + [("", "1.1.0"), ("[]", "1.1.0"), ("null", "1.1.0"), ("[" * 10_000, "1.1.0")],
)
def test_version_answers_in_the_version_it_is_asked(
    run_plugin: Runner, config: str, version: str
) -> None:
    assert ask_version(run_plugin, input=config.encode())["cniVersion"] == version


def test_version_with_stdout_closed_fails(run_plugin: Runner) -> None:
    for redirection in (">&-", ">/dev/full"):
        assert shell(run_plugin, redirection, {"CNI_COMMAND": "VERSION"}).returncode == 1


# ---- run by hand


@pytest.mark.parametrize("type", ["loopback", "bridge", "host-local"])
def test_about_text(run_plugin: Runner, type: str) -> None:
    done = subprocess.run([run_plugin.bin_dir / type], env={}, capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (0, b"")
    assert done.stderr.decode() == (
        f"CNI {type} plugin v{VERSION} ({NAME})\n"
        f"CNI protocol versions supported: {', '.join(SUPPORTED)}\n"
    )


@pytest.mark.parametrize("argument", ["--version", "-v", "version"])
def test_version_argument(run_plugin: Runner, argument: str) -> None:
    command = [str(run_plugin.bin_dir / "loopback"), argument]
    done = subprocess.run(command, env={}, capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.decode().startswith(f"CNI loopback plugin v{VERSION} ({NAME})\n")


def test_arguments_do_not_matter_to_a_runtime(run_plugin: Runner) -> None:
    command = [str(run_plugin.bin_dir / "loopback"), "--version"]
    done = subprocess.run(
        command, env={"CNI_COMMAND": "VERSION"}, stdin=subprocess.DEVNULL, capture_output=True
    )
    assert json.loads(done.stdout)["supportedVersions"] == list(SUPPORTED)


# ---- the forms of the answers


def test_results_have_the_form_of_the_go_plugins(
    host: Host, run_plugin: Runner, netns: NetnsFactory, go_bin_dir: pathlib.Path
) -> None:
    """Not just the same document: the same bytes, four spaces and no newline at the end."""
    texts = []
    for directory in (go_bin_dir, run_plugin.bin_dir):
        done = subprocess.run(
            [directory / "loopback"],
            input=encode({**CONFIG, "cniVersion": "1.0.0"}),
            env=environment("ADD", directory, netns("same"), "c1", "lo"),
            capture_output=True,
            check=True,
        )
        texts.append(done.stdout.decode())
        host.run("ip", "netns", "delete", "same")
    assert jsontext.dumps_indented(json.loads(texts[0])) == texts[0]
    assert jsontext.dumps_indented(json.loads(texts[1])) == texts[1]


def test_an_error_carries_the_version_of_the_configuration(
    run_plugin: Runner, netns: NetnsFactory
) -> None:
    config = {**CONFIG, "cniVersion": "0.4.0"}
    error = run_plugin("loopback", "ADD", config, netns="/run/netns/gone").failed(4, "gone")
    assert error["cniVersion"] == "0.4.0"
    twice = b'{"cniVersion": "1.0.0", "CNIVERSION": "0.4.0", "name": "x", "type": "loopback"}'
    error = run_plugin("loopback", "ADD", twice, netns="/run/netns/gone").failed(4, "gone")
    assert error["cniVersion"] == "0.4.0"
    error = run_plugin("loopback", "ADD", b"{", netns="/run/netns/gone").failed(6)
    assert error["cniVersion"] == SUPPORTED[-1]


def test_works_from_a_deleted_directory_without_locale_or_path(
    run_plugin: Runner, netns: NetnsFactory, tmp_path: pathlib.Path
) -> None:
    container, gone = netns(), tmp_path / "gone"
    gone.mkdir()
    env = variables(run_plugin, "ADD", container)
    del env["PATH"]
    done = subprocess.run(
        [
            "/bin/sh",
            "-c",
            f'cd {gone} && /bin/rmdir {gone} && exec "$0"',
            run_plugin.bin_dir / "loopback",
        ],
        input=encode(CONFIG),
        env={**env, "LC_ALL": "nonexistent"},
        capture_output=True,
        check=False,
    )
    reply(done.returncode, done.stdout, done.stderr).result()
    assert is_up(container)


@pytest.mark.parametrize("version", ["one", "9.9.9", "1.1", "x" * 3000])
def test_an_error_has_a_version_that_exists(run_plugin: Runner, version: str) -> None:
    """The runtime has to be able to read it, whatever it asked with."""
    error = run_plugin("loopback", "DEL", {**CONFIG, "cniVersion": version})
    assert error.failed(1)["cniVersion"] == "1.1.0"
