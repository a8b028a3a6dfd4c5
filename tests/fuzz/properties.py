# SPDX-License-Identifier: Apache-2.0
"""What has to hold of every answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, TypeVar

from libcni.types import errors
from libcni.types.errors import CniError

T = TypeVar("T")

#: The codes that an input may lead to: all but the one for faults of ours.
CODES = {
    value
    for name, value in vars(errors).items()
    if name.isupper() and isinstance(value, int) and value != errors.INTERNAL
}
#: The reference answers with 999 what it cannot write as a result of version 0.2.0.
_AS_THE_REFERENCE = "cannot convert: no valid IP addresses"


class Violation(AssertionError):
    """An answer that no input may lead to."""


def coded(function: Callable[..., T], *arguments: Any) -> T | None:
    """Call what reads an input: its value, or None when it refused the input as it should.

    Raises Violation for an error without a usable code; any other exception passes through and
    is a violation too.
    """
    try:
        return function(*arguments)
    except CniError as error:
        check_error(error.to_json("1.1.0"))
        return None


def check_error(document: Any) -> None:
    """Raise Violation unless `document` is the specification's error object, no fault of ours."""
    if not isinstance(document, dict) or not set(document) <= {
        *("cniVersion", "code", "msg", "details")
    }:
        raise Violation(f"no error object: {document!r}")
    code, msg = document.get("code"), document.get("msg")
    if not isinstance(document.get("cniVersion"), str) or not isinstance(msg, str) or not msg:
        raise Violation(f"an error object without cniVersion or msg: {document!r}")
    if code not in CODES and msg != _AS_THE_REFERENCE:
        raise Violation(f"code {code!r} for an input: {document!r}")
    json.dumps(document, ensure_ascii=False).encode("utf-8", "replace")


def check_answer(status: int, stdout: bytes, stderr: bytes) -> None:
    """Raise Violation unless a plugin that has ended answered as the specification has it."""
    if b"Traceback (most recent call last)" in stderr + stdout:
        raise Violation(f"a traceback: {stderr!r}")
    if status not in (0, 1):
        raise Violation(f"exit status {status}: {stdout!r} {stderr!r}")
    if not stdout.strip():
        if status:
            raise Violation(f"failed without a word: {stderr!r}")
        return
    try:
        document = json.loads(stdout)
    except ValueError:
        raise Violation(f"stdout is not one JSON document: {stdout!r}") from None
    if status:
        check_error(document)
    elif not isinstance(document, dict) or "cniVersion" not in document:
        raise Violation(f"no result: {document!r}")


def equal(one: object, other: object, what: str) -> None:
    """Raise Violation unless both are equal."""
    if one != other:
        raise Violation(f"{what}: {one!r} became {other!r}")
