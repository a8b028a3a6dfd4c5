# SPDX-License-Identifier: Apache-2.0
"""Leading a runtime through a scenario."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from cni_conformance.case import Finding, NotApplicable
from cni_conformance.runtime import network
from cni_conformance.runtime.driver import Attachment, Outcome, Runtime
from cni_conformance.runtime.expectation import Evidence, judge
from cni_conformance.runtime.recorder import Answer, Call, Recorder
from cni_conformance.runtime.scenario import Scenario
from cni_conformance.wording import show

#: Names of networks: what a runtime remembers of one scenario must not meet the next.
_serial = itertools.count(1)


class Stage:
    """A runtime with recording plugins, for one scenario after another."""

    def __init__(self, runtime: Runtime, recorder: Recorder) -> None:
        self.runtime, self.recorder = runtime, recorder

    def run(self, scenario: Scenario) -> None:
        """Raises Finding when the runtime does otherwise, NotApplicable if it cannot be asked."""
        obstacle = scenario.obstacle(self.runtime)
        if obstacle:
            raise NotApplicable(obstacle)
        play = _Play(self.runtime, self.recorder, scenario)
        play.prepare()
        try:
            play.act()
        finally:
            play.relent()
            self.runtime.reset()
        evidence = play.evidence()
        for expectation in scenario.document["expect"]:
            judge(network.fill(expectation, play.version, play.network["name"]), evidence)


class _Play:
    """One scenario while it runs."""

    def __init__(self, runtime: Runtime, recorder: Recorder, scenario: Scenario) -> None:
        self.runtime, self.recorder, self.scenario = runtime, recorder, scenario
        self.data = scenario.document
        self.version = scenario.version_for(runtime)
        self.answers: dict[str, Answer] = {}
        self.ends: list[int] = []
        self.namespaces: dict[str, str] = {}
        self.ids: dict[str, str] = {}
        self.outcomes: list[Outcome | None] = []

    def prepare(self) -> None:
        """Plugins with their answers, and the network in force."""
        self.recorder.reset()
        plugins = self.data.get("plugins", network.PLUGINS)
        beside = self.data.get("beside", [])
        elsewhere = self.data.get("second_directory", [])
        types = [plugin["type"] for plugin in (*plugins, *beside)]
        present = [type for type in types if type not in elsewhere and type != "absent"]
        self.recorder.install([*present, *self.runtime.own_plugins])
        if elsewhere:
            self.recorder.install(elsewhere, self.runtime.plugin_dirs[1])
        for place, type in enumerate(types):
            self.tell(f"{type} ADD", Answer(network.result(place, self.version)))
            self.tell(f"{type} VERSION", Answer(_VERSIONS))
        for type in self.runtime.own_plugins:
            self.recorder.answer(f"{type} ADD", Answer(_LOOPBACK))
            self.recorder.answer(f"{type} VERSION", Answer(_VERSIONS))
        self.tell_all(self.data.get("answers", {}))
        document = {"cniVersion": self.version, "name": f"conformance{next(_serial)}"}
        document |= network.fill(self.data.get("network", {}), self.version)
        self.network = document | {"plugins": plugins}
        self.runtime.configure(self.network, beside)

    def relent(self) -> None:
        """Let everything succeed from now on: what is still attached is to go."""
        self.recorder.relent()
        self.recorder.install(plugin["type"] for plugin in self.network["plugins"])

    def tell(self, name: str, answer: Answer) -> None:
        """Let `first ADD` be answered like this from now on."""
        self.answers[name] = answer
        self.recorder.answer(name, answer)

    def tell_all(self, answers: Mapping[str, Any]) -> None:
        """The same for several, as scenarios write them."""
        types = [plugin["type"] for plugin in self.data.get("plugins", network.PLUGINS)]
        for name, document in answers.items():
            type = name.split()[0]
            place = types.index(type) if type in types else len(types)
            if type in self.runtime.own_plugins:
                self.recorder.answer(name, network.answer(document, place, self.version))
                continue
            self.tell(name, network.answer(document, place, self.version))

    def act(self) -> None:
        """Every step in turn. Raises Finding when one ends otherwise than it should."""
        for place, step in enumerate(self.data["steps"]):
            outcome = self._step(step)
            self.ends.append(len(self._seen()))
            self.outcomes.append(outcome)
            if outcome is None:
                continue
            if step["do"] == "attach":
                self._note(step, place)
            _judge_outcome(step, outcome)

    def _step(self, step: Mapping[str, Any]) -> Outcome | None:
        attachment = Attachment(
            step.get("container", "a"),
            step.get("ifname", "eth0"),
            tuple((key, value) for key, value in step.get("args", ())),
            step.get("capabilities", {}),
        )
        match step["do"]:
            case "attach":
                return self.runtime.attach(attachment)
            case "check":
                return self.runtime.check(attachment)
            case "detach":
                return self.runtime.detach(attachment)
            case "gc":
                return self.runtime.gc([Attachment(name) for name in step.get("valid", ())])
            case "status":
                return self.runtime.status()
            case "answer":
                self.tell_all(step["answers"])
            case "lose-namespace":
                self.runtime.lose_namespace(attachment.container)
            case "unset-namespace":
                self.runtime.unset_namespace(attachment.container)
            case other:
                raise ValueError(f"{self.scenario.id}: there is no step {other!r}")
        return None

    def _note(self, step: Mapping[str, Any], place: int) -> None:
        container = step.get("container", "a")
        self.namespaces.setdefault(container, self.runtime.namespace(container))
        for call in self._steps(self._seen())[place]:
            self.ids.setdefault(container, call.environment.get("CNI_CONTAINERID", ""))

    def _seen(self) -> list[Call]:
        """The calls so far that are a scenario's matter."""
        hidden = () if self.data.get("own_plugins") else self.runtime.own_plugins
        calls = self.recorder.calls()
        return [c for c in calls if c.verb != "VERSION" and c.plugin not in hidden]

    def _steps(self, calls: list[Call]) -> list[list[Call]]:
        bounds: Iterator[tuple[int, int]] = itertools.pairwise([0, *self.ends])
        return [calls[begin:end] for begin, end in bounds]

    def evidence(self) -> Evidence:
        """What is to be judged, the reset at the end left out."""
        return Evidence(
            self._steps(self._seen()),
            self.answers,
            self.namespaces,
            self.ids,
            self.outcomes,
            tuple(map(str, self.runtime.plugin_dirs)),
        )


_VERSIONS = {
    "cniVersion": "1.1.0",
    "supportedVersions": ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"],
}
_LOOPBACK = {"cniVersion": "0.3.1", "interfaces": [{"name": "lo", "sandbox": "/run/netns/c"}]}


def _judge_outcome(step: Mapping[str, Any], outcome: Outcome) -> None:
    """`fails`: true, false (the default), "maybe", or a text that the message must have."""
    wanted = step.get("fails", False)
    if wanted == "maybe":
        return
    if not wanted and not outcome.succeeded:
        raise Finding(f"{step['do']} to succeed", f"failure: {outcome.message}")
    if wanted and outcome.succeeded:
        raise Finding(f"{step['do']} to fail", "success")
    if isinstance(wanted, str) and wanted not in outcome.message:
        raise Finding(f"{step['do']} to fail with {show(wanted)} in its message", outcome.message)
