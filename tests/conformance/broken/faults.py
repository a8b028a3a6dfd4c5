# SPDX-License-Identifier: Apache-2.0
"""What is wrong with each broken plugin: a function per case that is code, by the case's name.

Each takes the call and returns the reply; what it does not spoil, the correct plugin answers.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re
import time
from collections.abc import Callable
from typing import Any

from broken.call import MEMORY, Call, Reply, error

Fault = Callable[[Call], Reply]

#: The type of each broken plugin; `bridge` unless it is here.
TYPES = {
    "result-abbreviated": "host-local",
    "result-unique-addresses": "host-local",
    "chain-passes-on": "tuning",
    "chain-needs-prevresult": "tuning",
    "check-device-removed": "bandwidth",
    "check-other-route-removed": "sbr",
    "check-policy-rule-removed": "sbr",
    "check-neighbour-removed": "vxlan-overlay",
    "check-fdb-removed": "vxlan-overlay",
    "check-qdisc-removed": "bandwidth",
    "check-attribute-undone": "tuning",
    "check-sysctl-undone": "tuning",
}


def _on(command: str, fault: Fault) -> Fault:
    """Only for this verb."""
    return lambda call: fault(call) if call.command == command else call.real()


def _after(command: str, change: Callable[[Call, Reply], Reply | None]) -> Fault:
    """Change the correct reply to this verb; None leaves it."""

    def fault(call: Call) -> Reply:
        reply = call.real()
        changed = change(call, reply) if call.command == command else None
        return reply if changed is None else changed

    return fault


def _leak_if(condition: Callable[[Call, Reply], bool]) -> Fault:
    """Leave something on the host after an ADD that failed."""

    def change(call: Call, reply: Reply) -> None:
        if reply.status and condition(call, reply):
            call.leak()

    return _after("ADD", change)


def _blind_to(pattern: str) -> Fault:
    """CHECK succeeds where the correct one complains of what the pattern describes."""

    def change(call: Call, reply: Reply) -> Reply | None:
        return Reply() if re.match(pattern, reply.document.get("msg", "")) else None

    return _after("CHECK", change)


def _ipam_type(call: Call) -> Any:
    return call.config.get("ipam", {}).get("type")


def _without(config: dict[str, Any], key: str) -> dict[str, Any]:
    return {name: value for name, value in config.items() if name != key}


def _forgets_the_recorder(call: Call) -> Reply:
    if _ipam_type(call) != "conformance-ipam":
        return call.real()
    return call.real(_without(call.config, "ipam"))


def _reads_stdin(call: Call) -> Reply:
    _ = call.stdin
    return call.real()


def _no_version_is_the_newest(call: Call) -> Reply:
    return call.real({"cniVersion": "1.1.0", **call.config})


def _elsewhere(call: Call, reply: Reply) -> Reply:
    interfaces = [
        {**interface, "sandbox": "/elsewhere"} if interface.get("sandbox") else interface
        for interface in reply.document.get("interfaces", ())
    ]
    return reply.with_document(interfaces=interfaces)


def _without_mtu(call: Call, reply: Reply) -> Reply:
    interfaces = [_without(i, "mtu") for i in reply.document.get("interfaces", ())]
    return reply.with_document(interfaces=interfaces)


def _own_name(call: Call) -> Reply:
    return call.real(CNI_IFNAME="eth0") if len(call.env["CNI_IFNAME"]) > 9 else call.real()


def _address_too_many(call: Call, reply: Reply) -> Reply:
    ips = reply.document.get("ips", [])
    return reply.with_document(ips=[*ips, {**ips[0], "address": "10.1.1.1/24"}]) if ips else reply


def _same_again(call: Call, reply: Reply) -> Reply:
    MEMORY.mkdir(parents=True, exist_ok=True)
    first = MEMORY / "result"
    if first.exists():
        return Reply(0, first.read_bytes())
    first.write_bytes(reply.stdout)
    return reply


def _minds_others(call: Call, reply: Reply) -> Reply | None:
    return (
        error(103, "foreign0") if "foreign0" in pathlib.Path("/proc/net/dev").read_text() else None
    )


def _minds_later_plugins(call: Call) -> Reply:
    return error(103, "later0") if b"later0" in call.stdin else call.real()


def _takes_both(call: Call) -> Reply:
    if call.env.get("CNI_IFNAME") == "eth0":
        call.real(CNI_IFNAME="eth1")
    return call.real()


def _reads_one_piece(call: Call) -> Reply:
    call.limit_stdin(os.read(0, 1 << 20))
    return call.real()


def _needs_stderr(call: Call) -> Reply:
    try:
        os.write(2, b"starting\n")
    except OSError as broken:
        return error(5, str(broken))
    return call.real()


def _delegate_first(call: Call) -> Reply:
    """Its failure is returned as it is, and nothing is taken back."""
    if _ipam_type(call) != "conformance-ipam":
        return call.real()
    for directory in call.env.get("CNI_PATH", "").split(":"):
        program = os.path.join(directory, str(_ipam_type(call)))
        if os.path.exists(program):
            reply = call.real(program=program)
            return reply if reply.status else call.real()
    return call.real()


def _impatient(call: Call) -> Reply:
    begin = time.monotonic()
    reply = call.real()
    return error(11, "the delegate took too long") if time.monotonic() - begin > 1.5 else reply


def _only_once(call: Call) -> Reply:
    return call.real() if call.nth("DEL") == 1 else Reply()


def _ignores_broken_stdout(call: Call) -> Reply:
    call.on_broken_stdout = lambda: 0
    return call.real()


def _leaks_at_broken_stdout(call: Call) -> Reply:
    def leak() -> int:
        call.leak()
        return 1

    call.on_broken_stdout = leak
    return call.real()


def _silenced(call: Call, reply: Reply) -> Reply | None:
    return Reply() if reply.status else None


def _died(call: Call, reply: Reply) -> Reply | None:
    return Reply(3, b"the delegate died") if reply.status else None


def _fewer_versions(call: Call, reply: Reply) -> Reply:
    versions = [v for v in reply.document["supportedVersions"] if v != "0.3.0"]
    return reply.with_document(supportedVersions=versions)


FAULTS: dict[str, Fault] = {
    "version-answer": _after("VERSION", lambda call, reply: reply.with_document(cniVersion=None)),
    "version-echo": _after("VERSION", lambda call, reply: reply.with_document(cniVersion="0.1.0")),
    "version-no-environment": _on(
        "VERSION", lambda call: call.real() if call.stdin else error(6, "no JSON")
    ),
    "version-open-stdin": _reads_stdin,
    "version-consistent": _after(
        "ADD", lambda call, reply: reply.with_document(cniVersion="1.0.0")
    ),
    "version-no-other": _after("VERSION", _fewer_versions),
    "version-missing": _on("ADD", _no_version_is_the_newest),
    "result-interface": _after("ADD", _elsewhere),
    "result-mtu": _after("ADD", _without_mtu),
    "result-ifname": _on("ADD", _own_name),
    "result-addresses": _after("ADD", _address_too_many),
    "result-abbreviated": _after(
        "ADD", lambda call, reply: reply.with_document(interfaces=[{"name": "eth0"}])
    ),
    "result-unique-addresses": _after("ADD", _same_again),
    "chain-passes-on": _after("ADD", lambda call, reply: reply.with_document(dns=None)),
    "chain-needs-prevresult": _on(
        "ADD", lambda call: call.real() if "prevResult" in call.config else Reply(0, b"nothing")
    ),
    "check-later-plugin": _on("CHECK", _minds_later_plugins),
    "check-foreign-changes": _after("CHECK", _minds_others),
    "check-off-the-bridge": _blind_to("master of host interface"),
    "check-rule-removed": _blind_to("masquerade: address"),
    "check-device-removed": _blind_to("ifb device for"),
    "check-shared-rule-removed": _blind_to("masquerade: the rules? for"),
    "check-host-link-down": _blind_to("(bridge|host interface) .*: expected up, found down"),
    "check-host-address-removed": _blind_to("addresses of cnf0"),
    "check-other-route-removed": _blind_to("route|default route"),
    "check-policy-rule-removed": _blind_to("rule from"),
    "check-neighbour-removed": _blind_to("neighbour"),
    "check-fdb-removed": _blind_to("forwarding entry"),
    "check-qdisc-removed": _blind_to("qdisc|ingress qdisc|redirection"),
    "check-attribute-undone": _blind_to("MTU|txQLen|promiscuous mode|allmulti"),
    "check-sysctl-undone": _blind_to("sysctl"),
    "del-after-later-plugin": _on("DEL", _minds_later_plugins),
    "two-interfaces": _on("DEL", _takes_both),
    "add-exhausted": _leak_if(lambda call, reply: _ipam_type(call) == "host-local"),
    "status-exhausted": _on("STATUS", lambda call: Reply()),
    "stdout-closed": _ignores_broken_stdout,
    "stdout-closed-del": _leaks_at_broken_stdout,
    "stdin-read-to-the-end": _on(
        "ADD", lambda call: error(6, "too much") if len(call.stdin) > 1 << 16 else call.real()
    ),
    "stdin-in-pieces": _on("ADD", _reads_one_piece),
    "stderr-closed": _needs_stderr,
    "delegate-environment": lambda call: call.real(X_Y=None),
    "delegate-stdin": _on(
        "ADD", lambda call: call.real(_without(call.config, "example.org/unknown"))
    ),
    "delegate-result": _after("ADD", lambda call, reply: reply.with_document(routes=None)),
    "delegate-del": _on("DEL", _forgets_the_recorder),
    "delegate-check": _on("CHECK", lambda call: Reply()),
    "delegate-status": _on("STATUS", lambda call: Reply()),
    "delegate-gc": _on("GC", lambda call: Reply()),
    "delegate-add-fails": _leak_if(lambda call, reply: reply.document.get("code") == 123),
    "delegate-add-fails-error": _after(
        "ADD", lambda call, reply: error(999, "failed") if reply.status else None
    ),
    "delegate-add-fails-del": _on("ADD", _delegate_first),
    "delegate-del-fails": _after("DEL", _silenced),
    "delegate-del-fails-retry": _on("DEL", _only_once),
    "delegate-check-fails": _after("CHECK", _silenced),
    "delegate-status-fails": _after("STATUS", _silenced),
    "delegate-gc-fails": _after("GC", _silenced),
    "delegate-missing": _leak_if(lambda call, reply: _ipam_type(call) == "conformance-nowhere"),
    "delegate-garbage": _leak_if(
        lambda call, reply: (
            _ipam_type(call) == "conformance-ipam" and reply.document.get("code") != 123
        )
    ),
    "delegate-dies": _after("ADD", _died),
    "delegate-stderr": lambda call: dataclasses.replace(call.real(), stderr=b""),
    "delegate-slow": _on("ADD", _impatient),
}
