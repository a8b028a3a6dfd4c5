# SPDX-License-Identifier: Apache-2.0
"""CHECK after a rule of a filter, or an element of one of its sets, was removed."""

from __future__ import annotations

import functools
import json
import re
import shlex
import shutil
import subprocess
from collections.abc import Iterator
from typing import Any

from cni_conformance.case import NotApplicable
from cni_conformance.mutations import Made, Mutation, declare

_LEGACY = ("iptables-legacy", "ip6tables-legacy")
_COUNTERS = re.compile(r"\[\d+:\d+\] ?")


def _output(*words: str, stdin: str | None = None) -> str:
    """What a program says. Raises NotApplicable when it cannot be run, or fails."""
    try:
        done = subprocess.run(words, input=stdin, capture_output=True, text=True, check=True)
    except OSError as error:
        raise NotApplicable(f"{words[0]} cannot be run: {error.strerror}") from None
    except subprocess.CalledProcessError as error:
        raise NotApplicable(f"{shlex.join(words)} failed: {error.stderr.strip()}") from None
    return done.stdout


def _nft(*commands: dict[str, Any]) -> None:
    _output("nft", "-j", "-f", "-", stdin=json.dumps({"nftables": list(commands)}))


def _objects(*options: str) -> list[tuple[str, dict[str, Any]]]:
    """(kind, body) of all there is in nftables."""
    listed = json.loads(_output("nft", "-j", *options, "list", "ruleset"))["nftables"]
    return [(kind, body) for item in listed for kind, body in item.items()]


def _key(element: Any) -> Any:
    """The key alone: of a map's element the first of two, of one with a comment its value."""
    if isinstance(element, list):
        element = element[0]
    return element["elem"]["val"] if isinstance(element, dict) and "elem" in element else element


def _rules(made: Made) -> Iterator[Mutation]:
    """What ADD gained: rules (those of iptables-nft too), elements of sets, legacy rules."""
    for kind, rule in _objects("-a"):
        if (
            kind == "rule"
            and _line(rule) not in made.host_before.lines("nft")
            and not _is_bookkeeping(made, f"nft: {_line(rule)}")
        ):
            place = {key: rule[key] for key in ("family", "table", "chain", "handle")}
            words = f"the rule {json.dumps(rule['expr'])} of {rule['table']} was removed"
            yield words, functools.partial(_nft, {"delete": {"rule": place}})
    for kind, body in _objects():
        for element in body.get("elem", ()) if kind in ("set", "map") else ():
            where = f"{body['family']} {body['table']} {body['name']}"
            text = f"element {where} {json.dumps(element, sort_keys=True)}"
            if text not in made.host_before.lines("nft") and not _is_bookkeeping(
                made, f"nft: {text}"
            ):
                place = {key: body[key] for key in ("family", "table", "name")}
                words = f"{json.dumps(element)} was removed from {body['table']} {body['name']}"
                command = {"delete": {"element": {**place, "elem": [_key(element)]}}}
                yield words, functools.partial(_nft, command)
    yield from _legacy_rules(made)


def _shared_rules(made: Made) -> Iterator[Mutation]:
    """Those that stay for the next container, in an order that survives their being made anew."""
    found: dict[str, Mutation] = {}
    for kind, rule in _objects("-a") if made.kept.lines("nft") else ():
        if kind == "rule" and _line(rule) in made.kept.lines("nft"):
            place = {key: rule[key] for key in ("family", "table", "chain", "handle")}
            words = (
                f"the rule {json.dumps(rule['expr'])} of {rule['table']} {rule['chain']}, which "
                "all containers share, was removed"
            )
            found[words] = words, functools.partial(_nft, {"delete": {"rule": place}})
    for words in sorted(found):
        yield found[words]


def _line(rule: dict[str, Any]) -> str:
    """The line of state that a rule is."""
    expression = [{"counter": None} if "counter" in part else part for part in rule["expr"]]
    comment = f" # {rule['comment']}" if "comment" in rule else ""
    place = f"rule {rule['family']} {rule['table']} {rule['chain']}"
    return f"{place} {json.dumps(expression)}{comment}"


def _is_bookkeeping(made: Made, line: str) -> bool:
    """Whether the profile says that nothing depends on it. line: "section: text"."""
    return any(re.match(pattern, line) for pattern in made.pod.bench.profile.bookkeeping)


def _legacy_rules(made: Made) -> Iterator[Mutation]:
    for command in _LEGACY:
        family = command.split("-")[0]
        if not any(line.startswith(f"{family} -A") for line in made.gained("iptables", False)):
            continue
        if shutil.which(f"{command}-save") is None:
            continue
        table = ""
        for line in _output(f"{command}-save").splitlines():
            if line.startswith("*"):
                table = line[1:]
            rule = _COUNTERS.sub("", line)
            new = f"{family} {rule}" not in made.host_before.lines("iptables")
            known = _is_bookkeeping(made, f"iptables: {family} {rule}")
            if rule.startswith("-A ") and new and not known:
                words = ["-D", *shlex.split(rule)[1:]]
                removal = functools.partial(_output, command, "-t", table, *words)
                yield f"{rule} was removed from {table}", removal


declare(
    "check-rule-removed",
    "that a rule that ADD made is gone",
    _rules,
    "Without it packets are no longer let through, translated or kept out. Each rule and each "
    "element of a set that ADD gained in nftables (as iptables-nft makes them too) or in the "
    "legacy iptables is removed in turn, with each backend that the profile names.",
    kinds=("interface", "chained"),
)
declare(
    "check-shared-rule-removed",
    "that a rule that containers share is gone",
    _shared_rules,
    "What ADD makes for a container is of no use without the rule that leads to it, which is made "
    "once and stays. Each rule in nftables (as iptables-nft makes them too) that is still there "
    "after DEL is removed in turn, with each backend that the profile names.",
    kinds=("interface", "chained"),
)
