# SPDX-License-Identifier: Apache-2.0
"""Executing a plugin and reading what it answers, its failures worded as the reference does."""

from __future__ import annotations

import posix

from libcni.invoke.spawn import Outcome, spawn
from libcni.types.errors import DECODING_FAILURE, DELEGATE_FAILED, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: Bytes of an unreadable answer that a message shows.
_SHOWN = 200


def exec_plugin(
    path: str, overrides: dict[str, str], stdin: bytes, timeout: float = 110.0
) -> bytes:
    """Run the plugin at `path` and return what it wrote to stdout.

    overrides: CNI_* variables on top of our environment. timeout: seconds. What it writes to
    stderr goes to ours. Raises the plugin's own CniError, or CniError 104 when it gave none.
    """
    return answer(path, spawn(path, (), overrides, stdin, timeout))


def answer(path: str, outcome: Outcome) -> bytes:
    """What `exec_plugin` returns and raises for the plugin at `path` that has ended so."""
    if outcome.status == 0 or outcome.stdout:
        _forward(outcome.stderr)
    if outcome.status:
        raise plugin_error(path, outcome)
    return outcome.stdout


def _forward(stderr: bytes) -> None:
    """To our stderr; losing it (closed, full) matters to nobody."""
    try:
        while stderr:
            stderr = stderr[posix.write(2, stderr) :]
    except OSError:
        pass


def plugin_error(path: str, outcome: Outcome) -> CniError:
    """The error that a failed plugin reported on stdout, or one about it."""
    if not outcome.stdout.strip():
        if not outcome.stderr:
            text = f"netplugin failed with no error message: {outcome.describe()}"
        else:
            said = outcome.stderr.decode("utf-8", "replace").strip()
            text = f"netplugin failed: {said[:4000]!r}: {outcome.describe()}"
        return CniError(DELEGATE_FAILED, text, f"executed {path}")
    from libcni.jsontext import loads

    cause = "not an error object"
    try:
        document = loads(outcome.stdout, "it")
        if isinstance(document, dict):
            member = {key.lower(): value for key, value in document.items()}
            code, msg, details = (member.get(key) for key in ("code", "msg", "details"))
            if _is_error(code, msg, details):
                return CniError(code or 0, msg or "", details or "")
    except CniError as error:
        cause = str(error)
    return CniError(
        DELEGATE_FAILED,
        "netplugin failed but error parsing its diagnostic message "
        f"{_excerpt(outcome.stdout)}: {cause}",
        f"executed {path}: {outcome.describe()}",
    )


def _is_error(code: Any, msg: Any, details: Any) -> bool:
    """True for members with the types of an error object, at least one of them said."""
    return (
        (code is None or (type(code) is int and code >= 0))
        and (msg is None or isinstance(msg, str))
        and (details is None or isinstance(details, str))
        and (code is not None or bool(msg))
    )


def result_document(path: str, output: bytes) -> dict[str, Any]:
    """The JSON object that an ADD wrote; `null` is an empty one. Raises CniError 6."""
    from libcni.jsontext import loads

    try:
        document = loads(output, "it")
    except CniError as error:
        raise CniError(
            DECODING_FAILURE,
            f"result of {path} is not valid JSON: {_excerpt(output)}",
            error.details or error.msg,
        ) from None
    if document is None:
        return {}
    if not isinstance(document, dict):
        raise CniError(
            DECODING_FAILURE, f"result of {path} is not a JSON object: {_excerpt(output)}"
        )
    return document


def _excerpt(output: bytes) -> str:
    shown = repr(output[:_SHOWN].decode("utf-8", "replace"))
    return shown if len(output) <= _SHOWN else f"{shown}… ({len(output)} bytes)"
