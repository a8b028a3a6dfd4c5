# SPDX-License-Identifier: Apache-2.0
"""Delegation to an IPAM plugin, seen by one that records how it is called."""

from __future__ import annotations

import json
from collections.abc import Callable

from cni_conformance.bench import Attachment, Bench
from cni_conformance.case import Finding, Level, case, preparation
from cni_conformance.outcome import Outcome
from cni_conformance.profiles import Profile
from cni_conformance.recorder import Call, ipam_result
from cni_conformance.wording import listed, shorten, show, text

_SECTION = "SPEC 1.1.0, section 4, Delegated plugin execution procedure"
_CODE, _MESSAGE = 123, "the recording delegate was told to fail"


def _delegates(profile: Profile) -> bool:
    return profile.delegates


def _case(
    id: str, title: str, level: Level, since: str = "0.1.0", newest_only: bool = False
) -> Callable[[Callable[[Bench], None]], Callable[[Bench], None]]:
    return case(
        id,
        title,
        section=_SECTION,
        level=level,
        since=since,
        newest_only=newest_only,
        applies=_delegates,
    )


def _pod(bench: Bench) -> Attachment:
    """An attachment whose addresses come from the recorder."""
    pod = bench.attachment()
    pod.config = {**pod.config, "ipam": {"type": bench.recorder.type, "recorded": [1, None, "é"]}}
    return pod


def _warm_up(bench: Bench) -> None:
    """What is made once is there, the recorder's calls do not count yet."""
    first = _pod(bench)
    first.attach()
    with preparation():
        first.delete().expect_success()
    first.discard()


def _fail(bench: Bench, command: str, code: int = _CODE) -> None:
    error = {"cniVersion": bench.version, "code": code, "msg": _MESSAGE}
    bench.recorder.answer(command, error, status=1)


def _expect_passed_on(outcome: Outcome) -> None:
    """The delegate's error is the caller's."""
    error = outcome.expect_error(names=[_MESSAGE])
    if error["code"] != _CODE:
        raise Finding(f"the delegate's error code {_CODE}", show(error))


def _last(bench: Bench, command: str) -> Call:
    calls = [call for call in bench.recorder.calls() if call.command == command]
    if not calls:
        raise Finding(f"{command} to call the delegate with {command}", "it was not called so")
    return calls[-1]


@_case("delegate-environment", "The delegate gets the environment that the plugin got", "required")
def delegate_environment(bench: Bench) -> None:
    """Every variable, those that the plugin does not know included."""
    pod = _pod(bench)
    call = bench.invocation("ADD", pod, args="IgnoreUnknown=1;K8S_POD_NAME=a", env={"X_Y": "é z"})
    with preparation():
        bench.run(call).expect_result(bench.version)
    came = _last(bench, "ADD").environment
    for name, value in call.environment.items():
        if came.get(name) != value:
            raise Finding(
                f"{name}={value} for the delegate",
                f"{name}={came[name]}" if name in came else f"no {name}",
            )


@_case("delegate-stdin", "The delegate gets the whole configuration", "required")
def delegate_stdin(bench: Bench) -> None:
    """Not only `ipam`, and keys that the plugin does not know as well."""
    pod = _pod(bench)
    pod.config["example.org/unknown"] = {"deep": [1, 2.5, None, True, "é"]}
    call = bench.invocation("ADD", pod)
    with preparation():
        bench.run(call).expect_result(bench.version)
    came = _last(bench, "ADD").config()
    wanted = json.loads(call.stdin)
    if came != wanted:
        raise Finding(show(wanted), show(came))


@_case(
    "delegate-result",
    "What the delegate gives is what the interface and the result have",
    "required",
)
def delegate_result(bench: Bench) -> None:
    """The address, with the index of the interface from 0.3.0 on, and the route."""
    pod = _pod(bench)
    result = pod.attach_for_result()
    document = json.dumps(result)
    for wanted in ("10.99.0.77/16", "10.97.0.0/16"):
        if wanted not in document:
            raise Finding(f"{wanted} in the result", show(result))
    addresses = sorted(pod.sandbox.state().lines("address"))
    if not any(line.startswith(f"{pod.ifname} 10.99.0.77/16") for line in addresses):
        raise Finding(f"10.99.0.77/16 on {pod.ifname}", listed(addresses))


def _forwards(command: str, bench: Bench) -> None:
    pod = _pod(bench)
    if command not in ("STATUS", "GC"):
        pod.attach()
    if command in ("STATUS", "GC"):
        more = {"cni.dev/valid-attachments": [pod.identity()]} if command == "GC" else {}
        outcome = bench.call(command, config={**pod.config, **more})
    else:
        outcome = bench.call(command, pod)
    outcome.expect_silence()
    call = _last(bench, command)
    wanted = json.loads(bench.calls[-1][0].stdin)
    if call.config() != wanted:
        raise Finding(
            f"the delegate's {command} with the plugin's configuration: {show(wanted)}",
            shorten(text(call.stdin)) or "nothing on its stdin",
        )


@_case("delegate-del", "DEL calls the delegate with DEL", "required")
def delegate_del(bench: Bench) -> None:
    """With the configuration that the plugin got."""
    _forwards("DEL", bench)


@_case("delegate-check", "CHECK calls the delegate with CHECK", "required", "0.4.0")
def delegate_check(bench: Bench) -> None:
    """With the configuration that the plugin got, prevResult included."""
    _forwards("CHECK", bench)


@_case("delegate-status", "STATUS calls the delegate with STATUS", "required", "1.1.0")
def delegate_status(bench: Bench) -> None:
    """With the configuration that the plugin got."""
    _forwards("STATUS", bench)


@_case("delegate-gc", "GC calls the delegate with GC", "required", "1.1.0")
def delegate_gc(bench: Bench) -> None:
    """With the configuration that the plugin got, the valid attachments included."""
    _forwards("GC", bench)


@_case(
    "delegate-add-fails",
    "The delegate's ADD failing makes the plugin's fail, and nothing is left",
    "required",
)
def delegate_add_fails(bench: Bench) -> None:
    """On the host and in the sandbox."""
    _warm_up(bench)
    pod = _pod(bench)
    before = bench.state()
    _fail(bench, "ADD")
    pod.add().expect_error()
    bench.expect_unchanged(before, "the host as before the ADD that failed")
    pod.expect_inside_unchanged()


@_case(
    "delegate-add-fails-error", "The error of the delegate's ADD is the plugin's", "recommended"
)
def delegate_add_fails_error(bench: Bench) -> None:
    """Code and message."""
    pod = _pod(bench)
    _fail(bench, "ADD")
    _expect_passed_on(pod.add())


@_case(
    "delegate-add-fails-del",
    "When the delegate's ADD fails, it is called again with DEL",
    "recommended",
)
def delegate_add_fails_del(bench: Bench) -> None:
    """A plugin that fails half way has a chance to take back what it did."""
    pod = _pod(bench)
    _fail(bench, "ADD")
    pod.add().expect_error()
    if bench.recorder.commands()[-2:] != ["ADD", "DEL"]:
        raise Finding("ADD, then DEL of the delegate", listed(bench.recorder.commands()))


@_case(
    "delegate-del-fails", "When the delegate's DEL fails, its error is the plugin's", "recommended"
)
def delegate_del_fails(bench: Bench) -> None:
    """So that the runtime calls again."""
    pod = _pod(bench)
    pod.attach()
    _fail(bench, "DEL")
    _expect_passed_on(pod.delete())


@_case(
    "delegate-del-fails-retry",
    "After the delegate's DEL failed, another DEL gets all done",
    "required",
)
def delegate_del_fails_retry(bench: Bench) -> None:
    """Nothing is forgotten, whatever the first one got done."""
    _warm_up(bench)
    pod = _pod(bench)
    before = bench.state()
    pod.attach()
    _fail(bench, "DEL")
    pod.delete()
    bench.recorder.answer("DEL")
    count = bench.recorder.commands().count("DEL")
    pod.delete().expect_silence()
    if bench.recorder.commands().count("DEL") == count:
        raise Finding("the second DEL to call the delegate again", "it did not")
    bench.expect_unchanged(before, "the host as before ADD")
    pod.expect_inside_unchanged()


@_case(
    "delegate-check-fails",
    "When the delegate's CHECK fails, its error is the plugin's",
    "recommended",
    "0.4.0",
)
def delegate_check_fails(bench: Bench) -> None:
    """Code and message."""
    pod = _pod(bench)
    pod.attach()
    _fail(bench, "CHECK")
    _expect_passed_on(pod.check())


@_case(
    "delegate-status-fails",
    "When the delegate is not ready, its error is the plugin's",
    "required",
    "1.1.0",
)
def delegate_status_fails(bench: Bench) -> None:
    """Code and message of the delegate's STATUS."""
    pod = _pod(bench)
    _fail(bench, "STATUS")
    _expect_passed_on(bench.call("STATUS", config=pod.config))


@_case(
    "delegate-gc-fails",
    "When the delegate's GC fails, its error is the plugin's",
    "recommended",
    "1.1.0",
)
def delegate_gc_fails(bench: Bench) -> None:
    """After the plugin has removed its own."""
    pod = _pod(bench)
    _fail(bench, "GC")
    config = {**pod.config, "cni.dev/valid-attachments": []}
    _expect_passed_on(bench.call("GC", config=config))


@_case(
    "delegate-missing",
    "A delegate that is not in CNI_PATH is an error, and nothing is left",
    "required",
    newest_only=True,
)
def delegate_missing(bench: Bench) -> None:
    """The message names it."""
    _warm_up(bench)
    pod = _pod(bench)
    before = bench.state()
    config = {**pod.config, "ipam": {"type": "conformance-nowhere"}}
    pod.add(config=config).expect_error(names=["conformance-nowhere"])
    bench.expect_unchanged(before, "the host as before the ADD that failed")
    pod.expect_inside_unchanged()


@_case(
    "delegate-garbage",
    "A delegate that prints something else than a result is an error",
    "required",
    newest_only=True,
)
def delegate_garbage(bench: Bench) -> None:
    """One error object, and nothing is left."""
    _warm_up(bench)
    pod = _pod(bench)
    before = bench.state()
    for answer in (b"no JSON", b"[]", b'{"cniVersion": "1.0.0", "ips": "x"}'):
        bench.recorder.answer("ADD", answer)
        pod.add().expect_error()
        said = text(answer)
        bench.expect_unchanged(before, f"the host as before an ADD whose delegate said {said}")
        pod.expect_inside_unchanged()


@_case(
    "delegate-dies",
    "A delegate that fails without a word is an error with one object",
    "required",
    newest_only=True,
)
def delegate_dies(bench: Bench) -> None:
    """Also when it says something that is no error object."""
    pod = _pod(bench)
    for answer in (None, b"Segmentation fault"):
        bench.recorder.answer("ADD", answer, status=3, stderr="delegate: out of luck\n")
        pod.add().expect_error()


@_case(
    "delegate-stderr",
    "What the delegate writes to stderr comes out of the plugin's",
    "recommended",
    newest_only=True,
)
def delegate_stderr(bench: Bench) -> None:
    """It is where a delegate logs, and it never gets into the result."""
    pod = _pod(bench)
    version = bench.version
    bench.recorder.answer("ADD", ipam_result(version), stderr="delegate: hello from below\n")
    outcome = pod.add()
    outcome.expect_result(version)
    if b"hello from below" not in outcome.stderr:
        raise Finding("the delegate's words on stderr", outcome.came())


@_case("delegate-slow", "A delegate may take its time", "required", newest_only=True)
def delegate_slow(bench: Bench) -> None:
    """Two seconds, as DHCP takes."""
    bench.recorder.answer("ADD", ipam_result(bench.version), seconds=2)
    _pod(bench).add().expect_result(bench.version)
