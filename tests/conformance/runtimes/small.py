# SPDX-License-Identifier: Apache-2.0
"""A small runtime that does everything right, but for the one thing that it is told to do wrong.

It calibrates the scenarios: `SmallRuntime(broken="del-order")` has the fault that the scenario of
that name is there to find. Plugins are not executed but played by `Rehearsal`, which answers as
the recording plugins do; that makes all faults against all scenarios a matter of seconds.
"""

from __future__ import annotations

import json
import pathlib
import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from cni_conformance.case import VERSIONS
from cni_conformance.runtime.driver import FEATURES, Attachment, Outcome
from cni_conformance.runtime.recorder import Answer, Call, Recorder

Document = dict[str, Any]
Key = tuple[str, str]


class Failed(Exception):
    """What a plugin or the runtime says of a failure."""


class Rehearsal(Recorder):
    """The recorder without processes: `execute` stands for exec."""

    def reset(self) -> None:
        """Forget all plugins, answers and calls."""
        self.plugins.mkdir(parents=True, exist_ok=True)
        self._answers: dict[str, Answer] = {}
        self._installed: set[str] = set()
        self._calls: list[Call] = []
        self._events = 0
        self._lock = threading.Lock()

    def install(self, names: Iterable[str], directory: pathlib.Path | None = None) -> None:
        """Make plugins of these types."""
        self._installed.update(f"{directory or self.plugins}/{name}" for name in names)

    def answer(self, call: str, answer: Answer) -> None:
        """How this call (`first ADD`) is answered from now on."""
        self._answers[call] = answer

    def relent(self) -> None:
        """Let every verb succeed from now on."""
        self._answers.clear()

    def calls(self) -> list[Call]:
        """Every call so far, in the order in which they began."""
        return sorted(self._calls, key=lambda call: call.begin)

    def exists(self, path: str) -> bool:
        """Whether there is such a plugin."""
        return path in self._installed

    def _event(self) -> int:
        with self._lock:
            self._events += 1
            return self._events

    def execute(self, path: str, environment: Mapping[str, str], stdin: str) -> Answer:
        """Play the plugin at `path`."""
        plugin, verb = path.rpartition("/")[2], environment["CNI_COMMAND"]
        begin = self._event()
        answer = self._answers.get(f"{plugin} {verb}", Answer())
        netns = environment["CNI_NETNS"]
        # A tenth is enough for two threads to meet.
        time.sleep(answer.seconds / 10)
        self._calls.append(
            Call(
                plugin,
                verb,
                0,
                {key: value for key, value in environment.items() if value or key == "CNI_NETNS"},
                json.loads(stdin),
                bool(netns) and pathlib.Path(netns).exists(),
                begin,
                self._event(),
            )
        )
        return answer


class SmallRuntime:
    """Implements cni_conformance.runtime.driver.Runtime. broken: the scenario to violate."""

    name = "small"
    features = frozenset(FEATURES)
    newest = VERSIONS[-1]
    own_plugins: tuple[str, ...] = ("loopback",)

    def __init__(self, scratch: pathlib.Path, broken: str = "") -> None:
        self.plugin_dirs: tuple[pathlib.Path, ...] = (scratch / "bin", scratch / "more")
        self.recorder = Rehearsal(self.plugin_dirs[0], scratch)
        self._broken = broken
        self._scratch = scratch
        self._begin()

    def _begin(self) -> None:
        self._network: Document = {}
        self._version = ""
        self._cache: dict[Key, Document] = {}
        self._deleted: dict[Key, Document] = {}
        self._run: dict[Key, list[str]] = {}
        self._unset: set[str] = set()

    def has(self, fault: str) -> bool:
        """Whether this is what is broken."""
        return self._broken == fault

    # ---- the interface

    def configure(self, network: Mapping[str, Any], beside: list[Mapping[str, Any]]) -> None:
        """Read the list and select the version."""
        self._begin()
        self._network = dict(network)
        only_inlined = network.get("loadOnlyInlinedPlugins") and not self.has(
            "request-only-inlined"
        )
        if not only_inlined and not self.has("request-beside"):
            self._network["plugins"] = [*network["plugins"], *beside]
        versions = {network["cniVersion"], *network.get("cniVersions", ())}
        if self.has("version-highest"):
            versions = {network["cniVersion"]}
        if not self.has("version-unknown"):
            versions &= set(VERSIONS)
        self._version = max(versions, key=lambda v: [int(part) for part in v.split(".")])

    def attach(self, attachment: Attachment) -> Outcome:
        """Namespace, loopback, ADD; after a failure DEL."""
        path = pathlib.Path(self.namespace(attachment.container))
        if not self.has("sandbox-before-add"):
            path.touch()
        loopback = threading.Thread(target=self._loopback, args=[attachment])
        loopback.start()
        if not self.has("sandbox-one-at-a-time"):
            loopback.join()
        outcome = self._outcome(lambda: self._add(attachment))
        loopback.join()
        path.touch()
        if not outcome.succeeded and not self.has("sandbox-cleans-up"):
            self._outcome(lambda: self._del(attachment, after_failure=True))
        return outcome

    def check(self, attachment: Attachment) -> Outcome:
        """CHECK in order, up to the first failure."""
        if self._network.get("disableCheck") and not self.has("check-disabled"):
            return Outcome(True)
        outcome = self._outcome(lambda: self._check(attachment))
        return Outcome(True) if self.has("check-error-reported") else outcome

    def detach(self, attachment: Attachment) -> Outcome:
        """DEL, then the namespace is removed."""
        path = pathlib.Path(self.namespace(attachment.container))
        if self.has("del-namespace-gone") and not path.exists():
            return Outcome(True)
        if self.has("sandbox-until-del"):
            path.unlink(missing_ok=True)
        outcome = self._outcome(lambda: self._del(attachment))
        others = [key for key in self._cache if key[0] == attachment.container]
        if outcome.succeeded and not others:
            path.unlink(missing_ok=True)
        return outcome

    def gc(self, valid: list[Attachment]) -> Outcome:
        """DEL what is remembered and not valid, then GC, going on after failures."""
        if self._network.get("disableGC") and not self.has("gc-disabled"):
            return Outcome(True)
        keep = [(a.container, a.ifname) for a in valid]
        failures: list[str] = []
        for container, ifname in list(self._cache):
            if (container, ifname) not in keep and not self.has("gc-deletes-first"):
                stale = Attachment(container, ifname)
                outcome = self._outcome(lambda stale=stale: self._del(stale))  # type: ignore[misc]
                failures += [outcome.message] if not outcome.succeeded else []
        if self.has("gc-valid-attachments"):
            keep = keep[:1]
        entries = [{"containerID": self._id(c), "ifname": i} for c, i in keep]
        more: Document = {"cni.dev/valid-attachments": entries}
        if not entries and self.has("gc-nothing-valid"):
            more = {}
        if self.has("gc-request"):
            more["runtimeConfig"] = {"portMappings": []}
        plugins = self._plugins()
        if self.has("gc-order"):
            plugins.sort(key=lambda plugin: str(plugin["type"]))
        if self._since("1.1.0") or self.has("version-gc"):
            for plugin in plugins:
                outcome = self._outcome(lambda p=plugin: self._call(p, "GC", None, more))  # type: ignore[misc]
                failures += [outcome.message] if not outcome.succeeded else []
                if failures and self.has("gc-continues"):
                    break
        if failures and self.has("gc-errors-reported"):
            failures = failures[-1:]
        return Outcome(not failures, "; ".join(failures))

    def status(self) -> Outcome:
        """STATUS in order, up to the first that is not ready."""
        if not self._since("1.1.0") and not self.has("version-status"):
            return Outcome(True)
        more: Document = {"runtimeConfig": {}} if self.has("status-request") else {}
        plugins = self._plugins()
        if self.has("status-order"):
            plugins.reverse()
        outcome = self._outcome(lambda: self._each(plugins, "STATUS", None, more))
        return Outcome(True) if self.has("status-error-reported") else outcome

    def lose_namespace(self, container: str) -> None:
        """Remove the file that stands for it."""
        pathlib.Path(self.namespace(container)).unlink()

    def unset_namespace(self, container: str) -> None:
        """Give none from now on."""
        self._unset.add(container)

    def namespace(self, container: str) -> str:
        """A file stands for it."""
        return str(self._scratch / f"netns-{container}")

    def reset(self) -> None:
        """Remove what stands for namespaces."""
        for path in self._scratch.glob("netns-*"):
            path.unlink()

    # ---- the protocol

    def _outcome(self, work: Callable[[], Any]) -> Outcome:
        try:
            return Outcome(True, result=work())
        except Failed as failure:
            return Outcome(False, str(failure))

    def _since(self, version: str) -> bool:
        return VERSIONS.index(self._version) >= VERSIONS.index(version)

    def _plugins(self) -> list[Document]:
        return list(self._network["plugins"])

    def _key(self, attachment: Attachment) -> Key:
        apart = not self.has("del-attachments-apart")
        return attachment.container, attachment.ifname if apart else "eth0"

    def _add(self, attachment: Attachment) -> Document:
        plugins = self._plugins()
        if self.has("add-order"):
            plugins.sort(key=lambda plugin: str(plugin["type"]))
        if self.has("add-repeated-type"):
            plugins = list({plugin["type"]: plugin for plugin in plugins}.values())
        results: list[Document] = []
        failure: Failed | None = None
        ran = self._run.setdefault(self._key(attachment), [])
        for plugin in plugins:
            previous = results[-1] if results else None
            if self.has("add-first-without-prevresult") and previous is None:
                previous = {"cniVersion": self._version}
            if self.has("add-prevresult") and results:
                previous = results[0]
            more = {} if previous is None else {"prevResult": previous}
            ran.append(plugin["type"])
            try:
                results.append(self._result(self._call(plugin, "ADD", attachment, more)))
            except Failed as failed:
                failure = failure or failed
                if not self.has("add-halts"):
                    break
        if failure:
            raise Failed("it failed") if self.has("add-error-reported") else failure
        self._cache[self._key(attachment)] = results[-1]
        return results[0] if self.has("add-result-returned") else results[-1]

    def _result(self, answer: Answer) -> Document:
        result = answer.stdout
        if not isinstance(result, dict):
            if self.has("add-malformed-result"):
                return {"cniVersion": self._version}
            raise Failed(f"this is no result: {result!r}")
        if self.has("add-prevresult-version"):
            return result
        return {"cniVersion": self._version, **result}

    def _check(self, attachment: Attachment) -> None:
        if not self._since("0.4.0") and not self.has("version-check"):
            raise Failed(f"{self._version} does not have CHECK")
        known = self._cache.get(self._key(attachment))
        if known is None and not self.has("check-unattached"):
            raise Failed(f"{attachment.container} is not attached")
        more = {"prevResult": known}
        if known and self.has("check-prevresult"):
            more["prevResult"] = {key: known[key] for key in known if key != "dns"}
        plugins = self._plugins()
        if self.has("check-order"):
            plugins.reverse()
        self._each(plugins, "CHECK", attachment, more)

    def _del(self, attachment: Attachment, after_failure: bool = False) -> None:
        key = self._key(attachment)
        known = self._cache.get(key)
        if known is None and not after_failure and self.has("del-after-failed-add"):
            return
        if known is None and self.has("del-forgets"):
            known = self._deleted.get(key)
        more = {} if known is None else {"prevResult": known}
        if known and self.has("del-prevresult"):
            more["prevResult"] = {key: known[key] for key in known if key != "dns"}
        plugins = list(reversed(self._plugins()))
        if self.has("del-order"):
            plugins.sort(key=lambda plugin: str(plugin["type"]), reverse=True)
        if known is None and self.has("del-after-failed-add-all"):
            plugins = [p for p in plugins if p["type"] in self._run.get(key, ())]
        failure: Failed | None = None
        for plugin in plugins:
            try:
                self._call(plugin, "DEL", attachment, more)
            except Failed as failed:
                failure = failed
                if not self.has("del-halts"):
                    break
        if failure and self.has("del-again-after-failure"):
            self._cache.pop(key, None)
        if failure:
            raise Failed("it failed") if self.has("del-error-reported") else failure
        if known:
            self._deleted[key] = known
        self._cache.pop(key, None)

    def _each(
        self, plugins: list[Document], verb: str, attachment: Attachment | None, more: Document
    ) -> None:
        for plugin in plugins:
            self._call(plugin, verb, attachment, more)

    def _loopback(self, attachment: Attachment) -> None:
        lo = Attachment(attachment.container, "lo")
        environment = self._environment("ADD", lo, "loopback")
        self.recorder.execute(f"{self.plugin_dirs[0]}/loopback", environment, "{}")

    # ---- one call

    def _call(
        self, plugin: Document, verb: str, attachment: Attachment | None, more: Document
    ) -> Answer:
        document = self._request(plugin, verb, attachment) | more
        path = self._find(plugin["type"])
        if path is None:
            return Answer(more.get("prevResult"))
        environment = self._environment(verb, attachment, plugin["type"])
        answer = self.recorder.execute(path, environment, json.dumps(document))
        if answer.stderr and self.has("add-stderr-is-a-log"):
            raise Failed(answer.stderr)
        if answer.status:
            result = isinstance(answer.stdout, dict) and "code" not in answer.stdout
            if not (result and self.has("add-exit-status")):
                raise Failed(f"{plugin['type']}: {json.dumps(answer.stdout)}")
        return answer

    def _find(self, type: str) -> str | None:
        places = self.plugin_dirs
        if self.has("environment-second-directory"):
            places = places[:1]
        for place in places:
            if self.recorder.exists(f"{place}/{type}"):
                return f"{place}/{type}"
        if self.has("add-plugin-missing"):
            return None
        raise Failed(f"failed to find plugin {type}")

    def _request(self, plugin: Document, verb: str, attachment: Attachment | None) -> Document:
        """The derived configuration, without prevResult."""
        document = dict(plugin)
        if self.has("request-unknown-keys"):
            document = json.loads(re.sub(r"null|\{\}", '""', json.dumps(document)))
        if not self.has("request-without-capabilities"):
            document.pop("capabilities", None)
        if not self.has("request-without-reserved-keys"):
            document = {k: v for k, v in document.items() if not k.startswith("cni.dev/")}
        always = {"name": self._network["name"], "cniVersion": self._version}
        document = always | document if self.has("request-name-and-version") else document | always
        declared = plugin.get("capabilities", {})
        given = {
            name: value
            for name, value in (attachment.capabilities if attachment else {}).items()
            if declared.get(name)
            or (self.has("request-capability-undeclared") and name not in declared)
            or (self.has("request-capability-switched-off") and name in declared)
        }
        if self.has("request-capability-form"):
            given = {
                name: [{key.title(): value for key, value in entry.items()} for entry in entries]
                for name, entries in given.items()
            }
        withheld = self.has("request-capability-del") and verb == "DEL"
        withheld |= self.has("request-capability-declared") and verb == "ADD"
        if given and not withheld:
            document["runtimeConfig"] = given
        return document

    def _id(self, container: str) -> str:
        return f"id:{container}" if self.has("environment-container-id") else f"id-{container}"

    def _environment(self, verb: str, attachment: Attachment | None, type: str) -> dict[str, str]:
        variables = dict.fromkeys(("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_ARGS"), "")
        variables |= {"CNI_COMMAND": verb, "CNI_PATH": ":".join(map(str, self.plugin_dirs))}
        if self.has("gc-path" if verb == "GC" else "environment-path"):
            variables["CNI_PATH"] = ""
        if attachment is None:
            return variables
        separator = "," if self.has("environment-args") else ";"
        arguments = separator.join(f"{key}={value}" for key, value in attachment.args)
        if self.has(f"environment-{verb.lower()}"):
            arguments = ""
        ifname = "eth0" if self.has("environment-ifname") and verb == "ADD" else attachment.ifname
        netns = self.namespace(attachment.container)
        if self.has("environment-netns") and verb == "ADD" and type == "second":
            netns = ""
        if attachment.container in self._unset and not self.has("del-namespace-unset"):
            netns = ""
        variables |= {"CNI_CONTAINERID": self._id(attachment.container), "CNI_NETNS": netns}
        return variables | {"CNI_IFNAME": ifname, "CNI_ARGS": arguments}
