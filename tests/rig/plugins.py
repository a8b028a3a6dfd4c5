# SPDX-License-Identifier: Apache-2.0
"""Running plugins as a runtime does, and finding the executables to run."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tests.rig.host import Host, Netns

ROOT = pathlib.Path(__file__).resolve().parents[2]
#: Debian's package containernetworking-plugins.
GO_BIN_DIR = pathlib.Path("/usr/lib/cni")
#: What a child gets besides CNI_*; plugins look for iptables and the like here.
BASE_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}


class Reply(NamedTuple):
    """A plugin's answer: exit status, the JSON document on stdout (None if empty), stderr."""

    rc: int
    json: Any
    stderr: str

    def result(self) -> dict[str, Any]:
        """The result of a call that has to have succeeded."""
        assert self.rc == 0, f"failed: {self.json} {self.stderr}"
        assert isinstance(self.json, dict), f"no result on stdout: {self.json!r}"
        return self.json

    def succeeded(self) -> Reply:
        """Assert success without output, as DEL, CHECK, GC and STATUS answer."""
        assert self.rc == 0, f"failed: {self.json} {self.stderr}"
        assert self.json is None, f"output after success: {self.json!r}"
        return self

    def failed(self, code: int, *culprits: str) -> dict[str, Any]:
        """Assert the specification's error object, its code, and that it names the culprits."""
        assert self.rc == 1, f"exit status {self.rc}, expected 1: {self.json} {self.stderr}"
        error = self.json
        assert isinstance(error, dict), f"no error object on stdout: {error!r} {self.stderr}"
        assert set(error) <= {"cniVersion", "code", "msg", "details"}, error
        assert isinstance(error["msg"], str) and error["msg"], error
        assert error["code"] == code, f"expected code {code}: {error}"
        text = f"{error['msg']} {error.get('details', '')}"
        missing = [culprit for culprit in culprits if culprit not in text]
        assert not missing, f"the message does not name {missing}: {text}"
        return error


def environment(
    command: str,
    path: str | os.PathLike[str],
    netns: Netns | str = "",
    container_id: str = "",
    ifname: str = "",
    args: str = "",
) -> dict[str, str]:
    """The variables of one call; empty ones are set all the same, as Go's libcni does."""
    return {
        **BASE_ENVIRONMENT,
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": container_id,
        "CNI_NETNS": netns.path if isinstance(netns, Netns) else netns,
        "CNI_IFNAME": ifname,
        "CNI_ARGS": args,
        "CNI_PATH": os.fspath(path),
    }


class Runner:
    """Calls plugins of `bin_dir`. Call it as run_plugin(type, command, config, ...).

    host: what has been attached and not deleted, by whichever plugin, is deleted by ours there at
    the end of the test.
    """

    def __init__(self, bin_dir: pathlib.Path, host: Host | None = None) -> None:
        self.bin_dir = bin_dir
        self._host = host

    def __call__(
        self,
        type: str,
        command: str,
        config: Mapping[str, Any] | bytes | None = None,
        *,
        netns: Netns | str = "",
        container_id: str = "container-1",
        ifname: str = "eth0",
        args: str = "",
        path: str | os.PathLike[str] | None = None,
        bin_dir: pathlib.Path | None = None,
        timeout: float = 60,
        under: Sequence[str] = (),
        variables: Mapping[str, str | None] | None = None,
        **more: str | None,
    ) -> Reply:
        """Run one plugin once.

        config: the document for stdin, or its bytes. path: CNI_PATH, the plugin's own directory
        when not given. under: the words of a program that starts it. variables and more: further
        environment (CNI_X="..."), None to unset.
        """
        directory = bin_dir or self.bin_dir
        env = environment(command, path or directory, netns, container_id, ifname, args)
        for name, value in {**(variables or {}), **more}.items():
            if value is None:
                env.pop(name, None)
            else:
                env[name] = value
        done = subprocess.run(
            [*under, directory / type],
            input=encode(config),
            env=env,
            capture_output=True,
            timeout=timeout,
            check=False,
        )
        if self._host is not None and done.returncode == 0 and command in ("ADD", "DEL"):
            document = json.loads(encode(config) or b"{}")
            key = (type, document.get("name"), container_id, ifname)
            arguments = {
                "netns": netns,
                "container_id": container_id,
                "ifname": ifname,
                "path": path,
                "variables": variables,
                **more,
            }
            self._remember(command == "ADD", key, document, arguments)
        return reply(done.returncode, done.stdout, done.stderr)

    def _remember(
        self, attached: bool, key: Any, document: dict[str, Any], arguments: dict[str, Any]
    ) -> None:
        assert self._host is not None
        type = key[0]
        if type == "bridge":
            names = [name for key, name in document.items() if key.lower() == "bridge" and name]
            self._host.share(*(names or ["cni0"]))
        if attached:
            self._host.at_end(key, lambda: self(type, "DEL", document, **arguments).succeeded())
        else:
            self._host.at_end(key, None)


def encode(config: Mapping[str, Any] | bytes | None) -> bytes:
    """The bytes for stdin."""
    if config is None:
        return b""
    return config if isinstance(config, bytes) else json.dumps(config).encode()


def reply(rc: int, stdout: bytes, stderr: bytes) -> Reply:
    """Decode what came; anything but JSON on stdout fails the test."""
    text = stdout.decode()
    try:
        document = json.loads(text) if text.strip() else None
    except ValueError:
        raise AssertionError(f"stdout is not JSON: {text!r}; stderr: {stderr!r}") from None
    return Reply(rc, document, stderr.decode("utf-8", "replace"))


def frozen_bin_dir() -> pathlib.Path | None:
    """build/bin, if it was built from the sources as they are now."""
    from libcni.about import NAME, VERSION
    from tools.freeze import hot

    built = ROOT / "build/bin"
    return built if (built / f"{NAME}-{VERSION}-{hot.fingerprint(ROOT)}").is_dir() else None


def our_bin_dir(scratch: pathlib.Path) -> pathlib.Path:
    """The executables under test.

    $ADDER_BIN_DIR if set, else the frozen build if it is current, else launchers of the sources,
    made in `scratch`.
    """
    override = os.environ.get("ADDER_BIN_DIR")
    if override:
        return pathlib.Path(override).resolve()
    from tools import source_launchers

    return frozen_bin_dir() or source_launchers.make(scratch)
