# SPDX-License-Identifier: Apache-2.0
"""Judging the record of a scenario: each kind of expectation, and what it says when it fails."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
from collections.abc import Mapping
from typing import Any

from cni_conformance.case import Finding
from cni_conformance.runtime.driver import Outcome
from cni_conformance.runtime.network import without_empty
from cni_conformance.runtime.recorder import Answer, Call
from cni_conformance.wording import listed, show

_ABSENT = object()


@dataclasses.dataclass(frozen=True)
class Evidence:
    """All there is to judge: calls by step, what plugins answered, what containers are.

    calls: one list per step. answers: `first ADD` to what it was told last; namespaces and ids:
    by container; outcomes: what the runtime told its caller, by step. plugin_dirs: the
    directories with plugins.
    """

    calls: list[list[Call]]
    answers: Mapping[str, Answer]
    namespaces: Mapping[str, str]
    ids: Mapping[str, str]
    outcomes: list[Outcome | None]
    plugin_dirs: tuple[str, ...]

    def of(self, expectation: Mapping[str, Any]) -> list[Call]:
        """The calls of the step that the expectation names, or of all."""
        if "step" in expectation:
            return self.calls[expectation["step"]]
        return [call for calls in self.calls for call in calls]


def judge(expectation: Mapping[str, Any], evidence: Evidence) -> None:
    """Raises Finding when the record is not as expected, ValueError when nothing is meant."""
    for kind, judged in _KINDS.items():
        if kind in expectation:
            judged(expectation, evidence)
            return
    raise ValueError(f"no kind of expectation: {expectation}")


def _order(expectation: Mapping[str, Any], evidence: Evidence) -> None:
    came = [call.name for call in evidence.of(expectation)]
    if came != expectation["order"]:
        where = f" in step {expectation['step']}" if "step" in expectation else ""
        raise Finding(f"the calls {listed(expectation['order'])}{where}", listed(came))


def _never(expectation: Mapping[str, Any], evidence: Evidence) -> None:
    came = [c.name for c in evidence.of(expectation) if _is(c, expectation["never"])]
    if came:
        raise Finding(f"no call of {expectation['never']}", listed(came))


def _apart(expectation: Mapping[str, Any], evidence: Evidence) -> None:
    calls = sorted(evidence.of(expectation), key=lambda call: call.begin)
    for one, other in itertools.pairwise(calls):
        if one.end is None or other.begin < one.end:
            raise Finding(
                "one operation at a time for a container",
                f"{other.name} began before {one.name} had ended",
            )


def _result(expectation: Mapping[str, Any], evidence: Evidence) -> None:
    name, outcome = expectation["result_is_answer_of"], evidence.outcomes[expectation["step"]]
    wanted, came = evidence.answers[name].stdout, outcome.result if outcome else None
    if without_empty(came) != without_empty(wanted):
        raise Finding(f"the answer of {name} as the result: {_show(wanted)}", _show(came))


def _errors(expectation: Mapping[str, Any], evidence: Evidence) -> None:
    """The message has the error of every plugin that was called in the step and failed."""
    outcome = evidence.outcomes[expectation["step"]]
    came = outcome.message if outcome else ""
    for call in evidence.of(expectation):
        answer = evidence.answers.get(call.name, Answer())
        if answer.status and answer.stdout["msg"] not in came:
            wanted = f"{show(answer.stdout['msg'])} of {call.name} in the message"
            raise Finding(wanted, show(came))


def _call(expectation: Mapping[str, Any], evidence: Evidence) -> None:
    """At least one such call (unless `optional`), and in each of them the member is right."""
    name = expectation["call"]
    calls = [call for call in evidence.of(expectation) if _is(call, name)]
    if not calls and not expectation.get("optional"):
        raise Finding(f"a call of {name}", listed([c.name for c in evidence.of(expectation)]))
    for call in calls:
        if "in_namespace" in expectation:
            _in_namespace(call)
        elif "stdin" in expectation or "env" in expectation:
            _member(expectation, evidence, call)


def _in_namespace(call: Call) -> None:
    if not call.sandbox:
        path = call.environment.get("CNI_NETNS", "")
        raise Finding(f"a namespace to be there for {call.name}", f"nothing is at {show(path)}")


def _member(expectation: Mapping[str, Any], evidence: Evidence, call: Call) -> None:
    what = f"{expectation.get('stdin') or expectation.get('env')} of {call.name}"
    came = _value(expectation, call)
    if came is _ABSENT and expectation.get("optional"):
        return
    wanted: Any = None
    match expectation:
        case {"absent": True}:
            if came is not _ABSENT:
                raise Finding(f"no {what}", _show(came))
            return
        case {"present": True}:
            if came is _ABSENT:
                raise Finding(what, _show(came))
            return
        case {"matches": pattern}:
            if not isinstance(came, str) or not re.fullmatch(pattern, came):
                raise Finding(f"{what} to match {pattern}", _show(came))
            return
        case {"plugin_dirs": True}:
            parts = came.split(":") if isinstance(came, str) else []
            if not set(evidence.plugin_dirs) <= set(parts):
                raise Finding(f"{what} to have {', '.join(evidence.plugin_dirs)}", _show(came))
            return
        case {"attachments": containers}:
            wanted = [{"containerID": evidence.ids[c], "ifname": "eth0"} for c in containers]
            wanted.sort(key=json.dumps)
            came = sorted(came, key=json.dumps) if isinstance(came, list) else came
        case {"namespace_of": container}:
            wanted = evidence.namespaces[container]
        case {"same_as": name}:
            first = next((c for c in evidence.calls[0] if _is(c, name)), None)
            wanted = _value(expectation, first) if first else None
        case {"answer_of": name}:
            wanted = without_empty(evidence.answers[name].stdout)
            came = without_empty(came)
        case {"is": wanted}:
            pass
        case _:
            raise ValueError(f"nothing is expected: {expectation}")
    if came != wanted:
        raise Finding(f"{what} to be {_show(wanted)}", _show(came))


def _value(expectation: Mapping[str, Any], call: Call) -> Any:
    """The variable, or the member of the document on stdin (a list of keys), or _ABSENT."""
    if "env" in expectation:
        return call.environment.get(expectation["env"], _ABSENT)
    value = call.stdin
    for key in expectation["stdin"].split(" "):
        if not isinstance(value, dict) or key not in value:
            return _ABSENT
        value = value[key]
    return value


def _is(call: Call, name: str) -> bool:
    plugin, verb = name.split()
    return plugin in ("*", call.plugin) and verb in ("*", call.verb)


def _show(value: Any) -> str:
    return "nothing" if value is _ABSENT else show(value)


_KINDS = {
    "order": _order,
    "never": _never,
    "apart": _apart,
    "result_is_answer_of": _result,
    "errors_reported": _errors,
    "call": _call,
}
