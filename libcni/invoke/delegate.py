# SPDX-License-Identifier: Apache-2.0
"""Delegation: a plugin running another one (its IPAM, or the plugin it wraps).

Spec 1.1.0 section 4: the delegate is looked for on CNI_PATH and gets the same environment and
the complete configuration; a failed ADD is followed by a DEL; CHECK, DEL, GC and STATUS are
forwarded; its error becomes the caller's. One of our own plugins is called in this process,
with the same result.
"""

from __future__ import annotations

from libcni.invoke.find import find_in_path
from libcni.invoke.installation import is_ours
from libcni.types.errors import INVALID_NETWORK_CONFIG, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from libcni.skel.request import Request
    from libcni.types.result import Result

#: Seconds for an executed delegate; longer than any runtime's own patience with us.
TIMEOUT = 110.0


def delegate_add(request: Request, type: str, config: dict[str, Any] | None = None) -> Result:
    """Run the delegate's ADD and return its result.

    config: what to hand down instead of the caller's own configuration. The delegate's DEL is
    registered on the caller's undo stack before it runs, so it follows any failure, the
    delegate's own included. A delegate in this process leaves its own inverses there instead:
    they take back just what this ADD made, where DEL would also release what an earlier ADD of
    the same attachment still owns. Raises the delegate's CniError.
    """
    path = find_in_path(type, request.path)
    if not is_ours(path):
        request.undo.push(_execute, request, "DEL", path, config)
    result = _run(request, "ADD", type, path, config)
    if result is None:
        from libcni.types.result import Result

        return Result()
    return result


def delegate_delete(request: Request, type: str, config: dict[str, Any] | None = None) -> None:
    """Run the delegate's DEL. Raises the delegate's CniError."""
    _run(request, "DEL", type, find_in_path(type, request.path), config)


def delegate_check(request: Request, type: str, config: dict[str, Any] | None = None) -> None:
    """Run the delegate's CHECK. Raises the delegate's CniError."""
    _run(request, "CHECK", type, find_in_path(type, request.path), config)


def delegate_gc(request: Request, type: str, config: dict[str, Any] | None = None) -> None:
    """Run the delegate's GC. Raises the delegate's CniError."""
    _run(request, "GC", type, find_in_path(type, request.path), config)


def delegate_status(request: Request, type: str, config: dict[str, Any] | None = None) -> None:
    """Run the delegate's STATUS. Raises the delegate's CniError."""
    _run(request, "STATUS", type, find_in_path(type, request.path), config)


def _run(
    request: Request, command: str, type: str, path: str, config: dict[str, Any] | None
) -> Result | None:
    if is_ours(path):
        return _call(request, command, type, config)
    return _execute(request, command, path, config)


def _call(
    request: Request, command: str, type: str, config: dict[str, Any] | None
) -> Result | None:
    """The delegate in this process: the same checks and the same undoing as when executed."""
    from libcni.skel import main
    from libcni.skel.plugin import UnknownPluginError, load
    from libcni.version import check_negotiated

    _refuse_circle(request, type)
    try:
        plugin = load(type)
    except UnknownPluginError as error:
        raise CniError(
            INVALID_NETWORK_CONFIG,
            f'"{type}" is not a plugin that {request.type} could delegate to',
            f"see ipam.type in the configuration; {error}",
        ) from None
    check_negotiated(request.version, plugin.versions)
    document = main.validated(plugin, command, request.config if config is None else config)
    child = request.child(command, type, document)
    try:
        result = main.call(plugin, child)
    except BaseException:
        child.undo.run_nested()
        raise
    request.undo.adopt(child.undo)
    if result is not None and request.version < "0.3.0":
        # The shapes up to 0.2.0 cannot hold everything: hand on just what a reader would get.
        from libcni.types.result import Result

        return Result.from_json(result.to_json(request.version), request.version)
    return result


def _refuse_circle(request: Request, type: str) -> None:
    """Raise CniError 7 for a delegate that would call itself for ever."""
    chain = (*request.callers, request.type)
    if type in chain:
        raise CniError(
            INVALID_NETWORK_CONFIG,
            f'plugin "{type}" would be its own delegate: {" → ".join((*chain, type))}',
            "ipam.type names the plugin that manages addresses, such as host-local",
        )


def _execute(
    request: Request, command: str, path: str, config: dict[str, Any] | None
) -> Result | None:
    """The delegate as a process of its own, with our environment."""
    from libcni.invoke.exec import exec_plugin
    from libcni.jsontext import dumps, loads

    stdin = request.stdin if config is None else dumps(config).encode("utf-8", "replace")
    output = exec_plugin(path, {"CNI_COMMAND": command}, stdin, TIMEOUT)
    if command != "ADD":
        return None
    from libcni.types.errors import DECODING_FAILURE
    from libcni.types.result import Result

    document = loads(output, f"result of {path}")
    if document is None:
        return None
    if not isinstance(document, dict):
        raise CniError(DECODING_FAILURE, f"result of {path} is not a JSON object")
    return Result.from_json(document, request.version)
