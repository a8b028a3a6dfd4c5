# SPDX-License-Identifier: Apache-2.0
"""What may follow what on the command line, read from the parsers so that it cannot lag behind."""

from __future__ import annotations

import argparse
import pathlib
from dataclasses import dataclass

#: What a word may be: FILES and the like, or the words themselves parted by spaces.
NOTHING, FILES, DIRECTORIES, NETWORKS, NAMESPACES = "", "<files>", "<dirs>", "<nets>", "<netns>"

#: By the name that the parser has for it, where that and not its type says what it may be.
_KINDS = {"network": NETWORKS, "netns": NAMESPACES, "paths": FILES, "cache_dir": DIRECTORIES}


@dataclass(frozen=True)
class Option:
    """An option. value: what its value may be; None when it takes none."""

    names: tuple[str, ...]
    help: str
    value: str | None


@dataclass(frozen=True)
class Verb:
    """What may follow a verb; the name is "" for what may stand before one.

    arguments: what each may be, in their order. is_endless: the last of them may be repeated.
    """

    name: str
    help: str
    options: tuple[Option, ...]
    arguments: tuple[str, ...]
    is_endless: bool = False


def verbs(top: argparse.ArgumentParser, conformance: argparse.ArgumentParser | None) -> list[Verb]:
    """Every verb, after what may stand before them.

    conformance: the parser of the verb that has one of its own; None where it is not installed.
    """
    found = [_verb("", "", top)]
    for action in top._actions:
        if isinstance(action, argparse._SubParsersAction):
            for choice in action._choices_actions:
                parser = action.choices[choice.dest]
                if choice.dest == "conformance" and conformance is not None:
                    parser = conformance
                found.append(_verb(choice.dest, choice.help or "", parser))
    return found


def _verb(name: str, text: str, parser: argparse.ArgumentParser) -> Verb:
    shown = [action for action in parser._actions if action.help != argparse.SUPPRESS]
    arguments = [action for action in shown if not action.option_strings]
    return Verb(
        name,
        text,
        tuple(
            Option(
                tuple(action.option_strings),
                action.help or "",
                None if action.nargs == 0 else _kind(action),
            )
            for action in shown
            if action.option_strings
        ),
        tuple(_kind(action) for action in arguments),
        bool(arguments) and arguments[-1].nargs == "*",
    )


def _kind(action: argparse.Action) -> str:
    if action.choices is not None:
        return " ".join(action.choices)
    if action.type is pathlib.Path or action.metavar == "FILE":
        return FILES
    return _KINDS.get(action.dest, NOTHING)
