# SPDX-License-Identifier: Apache-2.0
"""What a case gets: one plugin, one version, and a host that nobody else is on."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cni_conformance import links
from cni_conformance.case import VERSIONS, Finding, preparation
from cni_conformance.outcome import Outcome
from cni_conformance.profiles import Profile, merge_patch
from cni_conformance.recorder import Recorder
from cni_conformance.sandbox import Sandbox
from cni_conformance.state import State, collapsed, take

#: What a plugin's environment has besides CNI_*.
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
SCRATCH = pathlib.Path("/run/conformance")
#: After how many seconds a call counts as hanging.
TIMEOUT = 30.0
#: How long the kernel may take, in seconds, for the next step of what a plugin asked for.
_SETTLE = 1.0

_UNSET: Any = object()


@dataclasses.dataclass(frozen=True)
class Invocation:
    """One call of a plugin, not made yet: the whole environment and all of stdin."""

    program: str
    environment: dict[str, str]
    stdin: bytes

    @property
    def command(self) -> str:
        """CNI_COMMAND, "" if it has none."""
        return self.environment.get("CNI_COMMAND", "")

    def start(self, **options: Any) -> subprocess.Popen[bytes]:
        """The running process, with pipes unless `options`, those of Popen, say otherwise.

        Nothing has been written to its stdin.
        """
        streams = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
        return subprocess.Popen([self.program], env=self.environment, **{**streams, **options})


class Attachment:
    """A container and what it is attached by: (container_id, ifname) in a sandbox of its own.

    config: the configuration of its network without prevResult. base: the result of the plugins
    before it in the list; None for the first. result: what ADD returned, None before.
    """

    def __init__(self, bench: Bench, number: int, sandbox: Sandbox) -> None:
        self.bench, self.sandbox, self.number = bench, sandbox, number
        self.container_id = f"cnf-{number}"
        self.ifname = bench.profile.ifname or "eth0"
        names = links.names_for(number, self.ifname)
        self.config: dict[str, Any] = links.fill(bench.config(), names)
        self.base: dict[str, Any] | None = None
        self.result: dict[str, Any] | None = None
        if "${device}" in json.dumps(bench.profile.config):
            links.make_device(str(names["device"]))
        if bench.profile.kind == "chained":
            self.base = links.make_interface(sandbox, self.ifname, number, bench.version)
        #: What was inside before ADD.
        self.inside = sandbox.state()

    @property
    def previous(self) -> dict[str, Any] | None:
        """What a runtime gives as prevResult to CHECK and DEL."""
        return self.result or self.base

    def add(self, **options: Any) -> Outcome:
        """ADD; options as of Bench.call. A result is remembered."""
        outcome = self.bench.call("ADD", self, **options)
        if outcome.succeeded:
            try:
                document = json.loads(outcome.stdout)
            except ValueError:
                document = None
            self.result = document if isinstance(document, dict) else None
        return outcome

    def attach(self) -> Outcome:
        """ADD that only prepares what the case is about; a Finding unless it succeeds."""
        with preparation():
            outcome = self.add()
            outcome.expect_success()
        return outcome

    def attach_for_result(self) -> dict[str, Any]:
        """The same for a case that needs the result of ADD: a Finding unless it is valid."""
        with preparation():
            return self.add().expect_result(self.bench.version)

    def delete(self, **options: Any) -> Outcome:
        """DEL; options as of Bench.call. The result stays remembered."""
        return self.bench.call("DEL", self, **options)

    def check(self, **options: Any) -> Outcome:
        """CHECK; options as of Bench.call."""
        return self.bench.call("CHECK", self, **options)

    def identity(self) -> dict[str, str]:
        """As in GC's list of valid attachments."""
        return {"containerID": self.container_id, "ifname": self.ifname}

    def discard(self) -> None:
        """Remove its sandbox and the links that were made for it. Idempotent."""
        links.remove(f"cnfveth{self.number}", f"cnfdev{self.number}")
        self.sandbox.remove()

    def expect_inside_unchanged(self) -> None:
        """The sandbox is as it was before ADD, or a Finding."""
        self.bench.expect_inside_unchanged(self)


class Bench:
    """One plugin under one version of the specification, on an empty host of its own.

    plugin: path of the executable. profile: what is known of its type. version: cniVersion of
    every configuration. answered: the versions that the plugin says it supports; claimed: those
    of them that its type can be used with. calls: every call so far, for the report.
    """

    def __init__(
        self,
        plugin: pathlib.Path,
        profile: Profile,
        version: str,
        claimed: Sequence[str],
        answered: Sequence[str] = (),
    ) -> None:
        self.plugin, self.profile, self.version = plugin, profile, version
        self.claimed = tuple(claimed)
        self.answered = tuple(answered or claimed)
        self.network = "conformance"
        self.calls: list[tuple[Invocation, Outcome]] = []
        self.attachments: list[Attachment] = []
        self._sandboxes = 0
        SCRATCH.mkdir(parents=True, exist_ok=True)
        #: A delegate that records what it is called with; its type is recorder.type.
        self.recorder = Recorder(SCRATCH / "recorder", version)
        for name, text in profile.files.items():
            path = pathlib.Path(name)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        if "${device}" in json.dumps(profile.config):
            links.make_device("cnfdev0")
        links.prepare_host(with_master="${master}" in json.dumps(profile.config))

    @property
    def cni_path(self) -> str:
        """CNI_PATH: the plugin's own directory, then that of the recording delegate."""
        return f"{self.plugin.parent}:{self.recorder.directory}"

    def is_at_least(self, version: str) -> bool:
        """True when the version under test is this one or later."""
        return VERSIONS.index(self.version) >= VERSIONS.index(version)

    def config(self, patch: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """The configuration of the network, with a JSON merge patch (RFC 7386) applied.

        An IPAM plugin that is not beside the plugin is replaced by the recording delegate.
        """
        document = {
            "cniVersion": self.version,
            "name": self.network,
            "type": self.profile.type,
            **self.profile.config,
        }
        if self.profile.delegates and not self.has_sibling(document["ipam"]["type"]):
            document["ipam"] = {"type": self.recorder.type}
        merged: dict[str, Any] = merge_patch(document, dict(patch or {}))
        return merged

    def has_sibling(self, type: str) -> bool:
        """True when an executable of this type is beside the plugin."""
        return (self.plugin.parent / type).exists()

    def new_sandbox(self) -> Sandbox:
        """An empty sandbox."""
        self._sandboxes += 1
        return Sandbox(f"cnf{self._sandboxes}")

    def attachment(self, sandbox: Sandbox | None = None) -> Attachment:
        """A container that is ready for ADD: sandbox, device and prevResult as the type needs."""
        made = Attachment(self, len(self.attachments) + 1, sandbox or self.new_sandbox())
        self.attachments.append(made)
        return made

    def invocation(
        self,
        command: str,
        attachment: Attachment | None = None,
        *,
        container_id: str | None = None,
        netns: str | None = None,
        ifname: str | None = None,
        config: Mapping[str, Any] | None = None,
        prev_result: Any = _UNSET,
        args: str = "",
        env: Mapping[str, str | None] | None = None,
        stdin: bytes | None = None,
    ) -> Invocation:
        """A call as a runtime makes it for this attachment, except for what is given.

        config: the whole configuration instead of the attachment's. prev_result: instead of what
        belongs there, None for none. env: further variables, None to unset one. stdin: its bytes
        instead of any of these.
        """
        environment = {"PATH": SYSTEM_PATH, "CNI_COMMAND": command, "CNI_PATH": self.cni_path}
        if attachment is not None:
            environment |= {
                "CNI_CONTAINERID": attachment.container_id,
                "CNI_NETNS": attachment.sandbox.path,
                "CNI_IFNAME": attachment.ifname,
            }
        given = {"CNI_CONTAINERID": container_id, "CNI_NETNS": netns, "CNI_IFNAME": ifname}
        environment.update({name: value for name, value in given.items() if value is not None})
        if args:
            environment["CNI_ARGS"] = args
        for name, value in (env or {}).items():
            if value is None:
                environment.pop(name, None)
            else:
                environment[name] = value
        if stdin is None:
            document = dict(config if config is not None else self._config_of(attachment))
            previous = self._previous(command, attachment) if prev_result is _UNSET else None
            if prev_result is not _UNSET:
                previous = prev_result
            if previous is not None:
                document["prevResult"] = previous
            stdin = json.dumps(document).encode()
        return Invocation(str(self.plugin), environment, stdin)

    def _config_of(self, attachment: Attachment | None) -> dict[str, Any]:
        if attachment is not None:
            return attachment.config
        return self.default_config()

    def default_config(self) -> dict[str, Any]:
        """The configuration for verbs of no container (GC, STATUS)."""
        names = links.names_for(0, self.profile.ifname or "eth0")
        filled: dict[str, Any] = links.fill(self.config(), names)
        return filled

    def _previous(self, command: str, attachment: Attachment | None) -> Any:
        if attachment is None or command not in ("ADD", "DEL", "CHECK"):
            return None
        if command == "ADD" or not self.is_at_least("0.4.0"):
            return attachment.base if self.is_at_least("0.3.0") else None
        return attachment.previous

    def call(
        self,
        command: str,
        attachment: Attachment | None = None,
        *,
        timeout: float = TIMEOUT,
        **options: Any,
    ) -> Outcome:
        """Run the plugin once, to its end or until `timeout` seconds are over.

        options: as of `invocation`.
        """
        return self.run(self.invocation(command, attachment, **options), timeout)

    def run(self, invocation: Invocation, timeout: float = TIMEOUT, **options: Any) -> Outcome:
        """Run a prepared call; options as of Popen. It is remembered in `calls`."""
        begin = time.monotonic()
        process = invocation.start(**options)
        status: int | None
        try:
            stdout, stderr = process.communicate(invocation.stdin, timeout)
            status = process.returncode
        except subprocess.TimeoutExpired:
            process.kill()
            stdout, stderr = process.communicate()
            status = None
        outcome = Outcome(
            invocation.command, status, stdout or b"", stderr or b"", time.monotonic() - begin
        )
        self.calls.append((invocation, outcome))
        return outcome

    def state(self) -> State:
        """What is on the host now: links, addresses, routes, rules, filters, files …"""
        return take()

    def diff(self, before: State, after: State, ignore: Sequence[str] = ()) -> list[str]:
        """What changed, but for what the profile calls volatile and what `ignore` matches."""
        return before.diff(after, (*self.profile.volatile, *ignore))

    def expect_unchanged(
        self, before: State, expected: str = "nothing changed", ignore: Sequence[str] = ()
    ) -> None:
        """The host becomes as in `before` soon, or a Finding with the difference."""
        self._expect_none(lambda: self.diff(before, self.state(), ignore), expected)

    def expect_nothing_left(self, before: State) -> None:
        """The host has nothing that it did not have before; it may have lost something."""

        def gained() -> list[str]:
            difference = self.diff(before, self.state(), links.PERISHABLE)
            return [line for line in difference if line.startswith("+")]

        self._expect_none(gained, "nothing left on the host")

    def expect_inside_unchanged(self, attachment: Attachment) -> None:
        """The sandbox becomes as it was before ADD soon, or a Finding."""
        self._expect_none(
            lambda: self.diff(attachment.inside, attachment.sandbox.state()),
            f"nothing left in the sandbox of {attachment.container_id}",
        )

    def _expect_none(self, difference: Callable[[], list[str]], expected: str) -> None:
        """What the kernel still does on its own is waited for, as long as there is progress."""
        found = difference()
        deadline = time.monotonic() + _SETTLE
        while found and time.monotonic() < deadline:
            time.sleep(0.05)
            later = difference()
            if later != found:
                found, deadline = later, time.monotonic() + _SETTLE
        if found:
            shown = collapsed(found)
            more = [f"… {len(shown) - 8} more"] if len(shown) > 8 else []
            raise Finding(expected, "\n".join(shown[:8] + more))

    def warm_up(self) -> None:
        """Attach and detach one container, and remove it.

        What the type makes once and keeps (a bridge, forwarding, frames of rule sets) is there
        from now on; so after the DEL of an attachment that is made later, the host has to be
        exactly as it was after that one was prepared (`attachment()`).
        """
        first = self.attachment()
        first.attach()
        with preparation():
            first.delete().expect_success()
        first.discard()
