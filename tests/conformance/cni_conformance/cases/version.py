# SPDX-License-Identifier: Apache-2.0
"""VERSION: what it answers, and what it must not need."""

from __future__ import annotations

import json
import subprocess

from cni_conformance import data
from cni_conformance.bench import TIMEOUT, Bench, Invocation
from cni_conformance.case import VERSIONS, Finding, at_least, case
from cni_conformance.outcome import Outcome
from cni_conformance.wording import show

_SECTION = "SPEC 1.1.0, section 2, VERSION: probe plugin version support"


def _ask(bench: Bench, stdin: bytes, **more: str) -> Outcome:
    environment = {"CNI_COMMAND": "VERSION", **more}
    return bench.run(Invocation(str(bench.plugin), environment, stdin))


@case(
    "version-answer",
    "VERSION answers with the versions it supports, and nothing else",
    section="SPEC 1.1.0, section 5, Version",
    newest_only=True,
)
def version_answer(bench: Bench) -> None:
    """Exit status 0 and one JSON object with cniVersion and supportedVersions."""
    outcome = _ask(bench, json.dumps({"cniVersion": bench.version}).encode())
    outcome.expect_success()
    wrong = data.complaints("version", outcome.document())
    if wrong:
        raise Finding("an answer to VERSION as the specification has it", "; ".join(wrong))


@case(
    "version-echo",
    "VERSION answers with the cniVersion that it was asked with",
    section=_SECTION,
    versions=at_least("0.2.0"),
)
def version_echo(bench: Bench) -> None:
    """`cniVersion` of the answer is the value specified on input."""
    outcome = _ask(bench, json.dumps({"cniVersion": bench.version}).encode())
    outcome.expect_success()
    came = outcome.document().get("cniVersion")
    if came != bench.version:
        wanted = f'"cniVersion": {show(bench.version)}, as on input'
        raise Finding(wanted, f'"cniVersion": {show(came)}')


@case(
    "version-no-environment",
    "VERSION needs no variable but CNI_COMMAND, and no stdin",
    section=_SECTION,
    newest_only=True,
)
def version_no_environment(bench: Bench) -> None:
    """Runtimes ask before there is a container or a configuration."""
    outcome = _ask(bench, b"")
    outcome.expect_success()
    outcome.document()


@case(
    "version-open-stdin",
    "VERSION answers though nobody writes to stdin or closes it",
    section=_SECTION,
    level="recommended",
    newest_only=True,
)
def version_open_stdin(bench: Bench) -> None:
    """A runtime that has nothing to say leaves stdin as it is; a plugin that waits hangs."""
    call = Invocation(str(bench.plugin), {"CNI_COMMAND": "VERSION"}, b"")
    process = call.start()
    try:
        process.wait(TIMEOUT / 3)
    except subprocess.TimeoutExpired:
        process.kill()
        raise Finding("VERSION to answer", "it waits for the end of stdin") from None
    finally:
        process.communicate()


@case(
    "version-consistent",
    "ADD works with every version that VERSION names",
    section=_SECTION,
    is_basis=True,
)
def version_consistent(bench: Bench) -> None:
    """The result is in the very version that was asked for."""
    bench.attachment().add().expect_result(bench.version)


@case(
    "version-no-other",
    "ADD of a version that VERSION does not name fails with code 1",
    section="SPEC 1.1.0, section 5, Error, code 1",
    newest_only=True,
)
def version_no_other(bench: Bench) -> None:
    """What is not claimed is refused, not attempted."""
    pod = bench.attachment()
    for version in VERSIONS:
        if version not in bench.answered:
            outcome = pod.add(config={**pod.config, "cniVersion": version})
            outcome.expect_error([1])


@case(
    "version-missing",
    "A configuration without cniVersion is one of the first version",
    section="SPEC 0.1.0; libcni and skel, decoding a version",
    level="recommended",
    newest_only=True,
)
def version_missing(bench: Bench) -> None:
    """cniVersion was optional once. A plugin that does not speak 0.1.0 says so with code 1."""
    pod = bench.attachment()
    config = {key: value for key, value in pod.config.items() if key != "cniVersion"}
    outcome = pod.add(config=config, prev_result=None)
    if "0.1.0" in bench.claimed:
        outcome.expect_result("0.1.0")
    elif "0.1.0" not in bench.answered:
        outcome.expect_error([1])
