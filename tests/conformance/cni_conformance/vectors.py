# SPDX-License-Identifier: Apache-2.0
"""Cases that are data: spec/vectors/*.json, whose README says what each key means."""

from __future__ import annotations

import contextlib
import itertools
import pathlib
from typing import Any

import jsonschema

from cni_conformance import data, explanation, links, wording
from cni_conformance.bench import Attachment, Bench
from cni_conformance.case import Case, Finding, NotApplicable, at_least, preparation
from cni_conformance.outcome import Outcome
from cni_conformance.profiles import Profile, merge_patch
from cni_conformance.state import State

_AS_BEFORE = "the host as it was before ADD"


def load_cases() -> list[Case]:
    """Every case of every file. Raises ValueError that names file and place of a mistake."""
    found = []
    for path in sorted(data.VECTORS.glob("*.json")):
        document = data.read(path)
        check(document, path)
        found += [_case(vector) for vector in document["cases"]]
    return found


def check(document: Any, path: pathlib.Path) -> None:
    """Hold a file of vectors to spec/vectors/schema/vectors.json. Raises ValueError."""
    schema = data.read(data.VECTORS / "schema/vectors.json")
    wrong = wording.complaints(jsonschema.Draft7Validator(schema).iter_errors(document))
    if wrong:
        raise ValueError(f"{path}: {'; '.join(wrong)}")


def _case(vector: dict[str, Any]) -> Case:
    kinds = vector.get("kinds", ["interface", "ipam", "chained"])
    narrowing = ("delegates", "stateless", "creates")
    conditions = {key: vector[key] for key in narrowing if key in vector}

    def applies(profile: Profile) -> bool:
        return profile.kind in kinds and all(
            getattr(profile, key) == value for key, value in conditions.items()
        )

    return Case(
        vector["id"],
        vector["title"],
        vector["section"],
        vector["level"],
        tuple(vector["versions"]) if "versions" in vector else at_least(vector["since"]),
        applies,
        lambda bench: _Run(bench, vector).run(),
        explanation.in_words(vector),
        newest_only=vector.get("newestOnly", False),
        why=vector.get("why", ""),
    )


class _Run:
    """One case in progress: attachments by name, and the states that later steps refer to."""

    def __init__(self, bench: Bench, vector: dict[str, Any]) -> None:
        self.bench, self.steps = bench, vector["steps"]
        self.claims: str | None = vector.get("claims")
        self.attachments: dict[str, Attachment] = {}
        self.base: State

    def run(self) -> None:
        if self.claims and self.claims not in self.bench.answered:
            raise NotApplicable(f"the plugin does not support {self.claims}")
        if any(step["expect"].get("host", "unchanged") != "unchanged" for step in self.steps):
            self.warm_up()
        for step in self.steps:
            if _has_container(step["call"]):
                self.attachment(step.get("of", "a"))
        self.base = self.bench.state()
        leading = True
        for step in self.steps:
            leading = leading and _only_attaches(step)
            with preparation() if leading or step.get("prepares") else contextlib.nullcontext():
                self.step(step)

    def warm_up(self) -> None:
        """The bench's; what a case itself asks of a plain ADD and DEL holds for these as well."""
        try:
            self.bench.warm_up()
        except Finding as finding:
            finding.reached = finding.cause.partition(":")[0] in _own_plain(self.steps)
            raise

    def attachment(self, name: str) -> Attachment:
        if name not in self.attachments:
            self.attachments[name] = self.bench.attachment()
        return self.attachments[name]

    def step(self, step: dict[str, Any]) -> None:
        command = step["call"]
        attachment = self.attachment(step.get("of", "a")) if _has_container(command) else None
        options: dict[str, Any] = {}
        if "env" in step:
            options["env"] = {
                name: value.replace("${bin}", str(self.bench.plugin.parent)) if value else value
                for name, value in step["env"].items()
            }
        if "stdin" in step:
            options["stdin"] = step["stdin"].encode("utf-8", "surrogateescape")
        if "config" in step or "valid" in step:
            config = attachment.config if attachment else self.bench.default_config()
            options["config"] = merge_patch(config, step.get("config", {}))
        if "valid" in step:
            options["config"]["cni.dev/valid-attachments"] = [
                self.attachments[name].identity() for name in step["valid"]
            ]
        if "prevResult" in step:
            options["prev_result"] = step["prevResult"]
        if "prevResultPatch" in step and attachment is not None:
            if attachment.previous is None:
                raise NotApplicable("there is no result to change")
            options["prev_result"] = merge_patch(attachment.previous, step["prevResultPatch"])
        for name in step.get("vanished", ()):
            self.attachments[name].sandbox.remove()
        if "netns" in step and attachment is not None:
            self.move_sandbox(step["netns"], attachment, options)
        before = self.bench.state()
        if command == "ADD" and attachment is not None:
            outcome = attachment.add(**options)
        else:
            outcome = self.bench.call(command, attachment, **options)
        self.judge(step["expect"], outcome, before, attachment)

    def move_sandbox(self, where: str, attachment: Attachment, options: dict[str, Any]) -> None:
        if where.startswith("vanished"):
            attachment.sandbox.remove()
        if where == "not-there":
            options["netns"] = "/run/netns/never-was"
        elif where.endswith("none"):
            options["netns"] = ""

    def judge(
        self,
        expect: dict[str, Any],
        outcome: Outcome,
        before: State,
        attachment: Attachment | None,
    ) -> None:
        match expect.get("stdout"):
            case "result":
                outcome.expect_result(self.bench.version)
            case "nothing":
                outcome.expect_silence()
            case "error":
                error = outcome.expect_error(expect.get("codes", ()), expect.get("names", ()))
                self.judge_version(expect.get("cniVersion"), error)
            case "nothing or error":
                if outcome.status != 0:
                    outcome.expect_error(expect.get("codes", ()), expect.get("names", ()))
                else:
                    outcome.expect_silence()
            case "result or error":
                if outcome.status != 0:
                    outcome.expect_error(expect.get("codes", ()), expect.get("names", ()))
                else:
                    outcome.expect_result(self.bench.version)
        match expect.get("host"):
            case "unchanged":
                self.bench.expect_unchanged(before, f"{outcome.command} to change nothing")
            case "base":
                self.bench.expect_unchanged(self.base, _AS_BEFORE, links.PERISHABLE)
            case "exactly base":
                self.bench.expect_unchanged(self.base, _AS_BEFORE)
            case "nothing left":
                self.bench.expect_nothing_left(self.base)
        if expect.get("sandbox") == "unchanged" and attachment is not None:
            attachment.expect_inside_unchanged()

    def judge_version(self, expected: str | None, error: dict[str, Any]) -> None:
        came = error.get("cniVersion")
        if expected == "any" and not came:
            raise Finding("a cniVersion in the error", wording.show(error))
        if expected == "same" and came != self.bench.version:
            wanted = f'"cniVersion": "{self.bench.version}" in the error'
            raise Finding(wanted, wording.show(error))


def _attaches(step: dict[str, Any]) -> bool:
    """A step that says no more than that a container is attached."""
    plain = step["call"] == "ADD" and step["expect"] == {"stdout": "result"}
    return plain and step.keys() <= {"call", "of", "expect", "prepares"}


def _only_attaches(step: dict[str, Any]) -> bool:
    return _attaches(step) and step.get("prepares", True)


def _own_plain(steps: list[dict[str, Any]]) -> set[str]:
    """The commands, ADD and DEL, that a case is about before it comes to anything else."""

    def is_own(step: dict[str, Any]) -> bool:
        deletes = step["call"] == "DEL" and step["expect"].get("stdout") == "nothing"
        return not step.get("prepares") and (deletes or _attaches(step))

    own = itertools.dropwhile(_only_attaches, steps)
    return {step["call"] for step in itertools.takewhile(is_own, own)}


def _has_container(command: str) -> bool:
    return command not in ("GC", "STATUS", "VERSION")
