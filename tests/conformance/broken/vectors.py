# SPDX-License-Identifier: Apache-2.0
"""What is wrong with the broken plugins of cases that are data: the opposite of one step."""

from __future__ import annotations

import os
from typing import Any

from broken.call import Call, Reply, error


def attacked(steps: list[dict[str, Any]], case: str) -> int:
    """The step to get wrong: the first that expects an error, else the last of the case's verb."""
    refused = [n for n, step in enumerate(steps) if "error" in step["expect"].get("stdout", "")]
    verb = case.partition("-")[0].upper()
    its_own = [number for number, step in enumerate(steps) if step["call"] == verb]
    return refused[0] if refused else (its_own or [len(steps) - 1])[-1]


def opposite(call: Call, steps: list[dict[str, Any]], case: str) -> Reply:
    """Accept what has to be refused, or refuse what has to be accepted, at that step alone."""
    number = attacked(steps, case)
    step = steps[number]
    earlier = [s for s in steps[:number] if _counted_as(s) == _counted_as(step)]
    count = call.nth(call.command)
    # Without CNI_COMMAND, where that is what the step is about.
    wanted = step.get("env", {}).get("CNI_COMMAND", step["call"]) or ""
    if call.command != wanted:
        return call.real()
    if count != len(earlier) + 1 or not _is_it(call, step):
        return call.real()
    match step["expect"].get("stdout"):
        case "error":
            if step["expect"].get("cniVersion"):
                return call.real().with_document(cniVersion=None)
            return Reply()
        case "nothing or error" | "result or error":
            return Reply(0, b"neither")
    return error(999, "broken on purpose")


def _counted_as(step: dict[str, Any]) -> tuple[str, str, str | None]:
    """Calls are counted for each verb and container."""
    return step["call"], step.get("of", "a"), step.get("env", {}).get("CNI_CONTAINERID")


def _is_it(call: Call, step: dict[str, Any]) -> bool:
    """True when the call differs from a plain one in all that the step says."""
    config = call.config
    if any(call.env.get(name) != value for name, value in step.get("env", {}).items()):
        return False
    if "stdin" in step and call.stdin != step["stdin"].encode():
        return False
    if any(config.get(key) != value for key, value in step.get("config", {}).items()):
        return False
    if "prevResult" in step and config.get("prevResult") != step["prevResult"]:
        return False
    if "prevResultPatch" in step and "cniVersion" in config.get("prevResult", {}):
        return False
    if "valid" in step and len(config["cni.dev/valid-attachments"]) != len(step["valid"]):
        return False
    path, where = call.env.get("CNI_NETNS", ""), step.get("netns", "")
    if where.endswith("none") and path:
        return False
    return not (where in ("vanished", "not-there") and os.path.exists(path))
