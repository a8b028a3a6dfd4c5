# SPDX-License-Identifier: Apache-2.0
"""Which of its commands `vxlan-overlayd` was given: before, among or after the options."""

from __future__ import annotations

from collections.abc import Sequence

from cni_vxlan_overlay.agent import settings
from cni_vxlan_overlay.agent.settings import COMMANDS

#: Not the agent's own; the first hands on all that follows.
_OTHERS = ("install-cni", "version", "help")
#: What a flag's value looks like; anything else after a flag is not its value.
_BOOLEANS = ("1", "t", "true", "0", "f", "false")


class UnknownCommand(Exception):
    """A word that is neither a command nor the value of an option; the text names it."""


def split(words: Sequence[str]) -> tuple[str, list[str]]:
    """The command, "" without one, and all other words, in their order.

    `status` and `check` may follow the agent's options, which say nothing to them but where the
    state is: the others are left out. Raises UnknownCommand.
    """
    before: list[tuple[str, list[str]]] = []
    rest = list(words)
    while rest and rest[0].startswith("-"):
        name, has_value, _ = rest[0].lstrip("-").partition("=")
        size = 2 if not has_value and _takes(name, rest[1:]) else 1
        before.append((name, rest[:size]))
        rest = rest[size:]
    command = rest[0] if rest else ""
    if command and command not in COMMANDS and command not in _OTHERS:
        raise UnknownCommand(
            f"there is no command {command!r}; there are {', '.join(COMMANDS)} (--help says more)"
        )
    if command in ("status", "check"):
        before = [
            option for option in before if option[0] == "state-file" or _kind(option[0]) is None
        ]
    return command, [word for _, option in before for word in option] + rest[1:]


def _kind(name: str) -> str | None:
    return settings.KINDS.get(name)


def _takes(name: str, rest: Sequence[str]) -> bool:
    """Whether the next word is the option's value."""
    if not rest or rest[0].startswith("-"):
        return False
    if _kind(name) == "flag":
        return rest[0].lower() in _BOOLEANS
    # The value of some is left out; a command's own, as of --output, is not.
    return _kind(name) != "ignored" or rest[0] not in COMMANDS
