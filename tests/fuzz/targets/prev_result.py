# SPDX-License-Identifier: Apache-2.0
"""A result that somebody else made: prevResult, or what a delegate printed."""

from __future__ import annotations

from collections.abc import Iterator

from libcni.invoke.exec import plugin_error, result_document
from libcni.invoke.spawn import Outcome
from libcni.jsontext import dumps_indented, loads
from libcni.types.result import Result
from libcni.version import SUPPORTED
from tests.fuzz import mutation, properties
from tests.fuzz.target import Target, examples


def run(data: bytes) -> None:
    """Read it as each version, write it as each, and read that again."""
    properties.coded(result_document, "/opt/cni/bin/other", data)
    failure = plugin_error("/opt/cni/bin/other", Outcome(1, data, data))
    properties.equal(isinstance(failure.msg, str), True, "a delegate's error")
    document = properties.coded(loads, data)
    for asked in ("", *SUPPORTED):
        result = properties.coded(Result.from_json, document, asked)
        if result is None:
            continue
        for version in SUPPORTED:
            written = properties.coded(result.to_json, version)
            if written is None:
                continue
            text = dumps_indented(written).encode("utf-8", "replace")
            read = Result.from_json(loads(text), version)
            if version == "1.1.0":
                properties.equal(dumps_indented(read.to_json(version)), text.decode(), "a result")


def seeds() -> Iterator[bytes]:
    """The examples."""
    yield from examples("result", "error")


TARGET = Target(run, seeds, mutation.of_json)
