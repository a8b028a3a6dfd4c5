# SPDX-License-Identifier: Apache-2.0
"""From process to verb and back: the life of one plugin execution.

    environment, stdin -> checks -> Request -> verb -> Result -> stdout -> exit status

Any failure on the way becomes the specification's error object on stdout and exit status 1;
what the verb had done is undone. Nothing else is ever written to stdout.
"""

from __future__ import annotations

import posix
import sys

from libcni.skel import env
from libcni.skel.plugin import VERB_MODULES, Plugin, load
from libcni.types.errors import INTERNAL, IO_FAILURE, CniError
from libcni.version import NEWEST

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from libcni.skel.request import Request
    from libcni.types.result import Result


def run(type: str) -> int:
    """Be the plugin `type` for this process; the exit status is returned, never raised."""
    version = answered = NEWEST
    try:
        _hold_standard_streams()
        plugin = load(type)
        command = env.variable("CNI_COMMAND")
        if command == "VERSION":
            return _answer_version(plugin)
        if not command:
            return _introduce(plugin)
        env.check_command(command)
        values = _environment(command)
        config, stdin = _configuration()
        version = _version_of(config)
        if version in plugin.versions:
            answered = version
        request = _request(plugin, command, values, config, stdin, version)
    except Exception as error:
        return _fail(error, answered)
    return _perform(plugin, request)


def _hold_standard_streams() -> None:
    """Occupy 0, 1 and 2 where they are closed, or what is opened next would get the number.

    The result would then go into a socket or a lock file. Opened the wrong way round, so that
    using them still fails as it does on a closed one.
    """
    for fd, wrong in ((0, posix.O_WRONLY), (1, posix.O_RDONLY), (2, posix.O_RDONLY)):
        try:
            posix.fstat(fd)
        except OSError:
            posix.open("/dev/null", wrong)


def _introduce(plugin: Plugin) -> int:
    """Without CNI_COMMAND a person is looking: say who we are, on stderr as Go's plugins do."""
    arguments = sys.argv[1:]
    if arguments and arguments[0] in ("--version", "-v", "version"):
        _write(1, plugin.about().encode())
        return 0
    _write(2, plugin.about().encode())
    return 0


def _answer_version(plugin: Plugin) -> int:
    """The VERSION result; cniVersion echoes the one asked with, as the specification words it."""
    from libcni.skel.stdin import peek_version

    asked = peek_version()
    version = asked if asked in plugin.versions else plugin.versions[-1]
    supported = '","'.join(plugin.versions)
    answer = f'{{"cniVersion":"{version}","supportedVersions":["{supported}"]}}\n'
    return 0 if _write(1, answer.encode()) else 1


def _environment(command: str) -> dict[str, str]:
    names = ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH", "CNI_ARGS")
    values = {name: env.variable(name) for name in names}
    env.check_required(command, values)
    if command in ("ADD", "DEL", "CHECK"):
        env.check_container_id(values["CNI_CONTAINERID"])
        env.check_ifname(values["CNI_IFNAME"])
    return values


def _configuration() -> tuple[dict[str, Any], bytes]:
    from libcni.jsontext import loads
    from libcni.skel.stdin import read_configuration
    from libcni.types.errors import DECODING_FAILURE

    data = read_configuration()
    config = loads(data)
    if not isinstance(config, dict):
        raise CniError(DECODING_FAILURE, "network configuration is not a JSON object")
    return config, data


def _version_of(config: dict[str, Any]) -> str:
    """The cniVersion, or "0.1.0"; a malformed one is the business of negotiation."""
    version = None
    for key, value in config.items():
        if key.lower() == "cniversion":
            version = value  # the last one wins, however it is spelled
    return version if isinstance(version, str) and version else "0.1.0"


def _request(
    plugin: Plugin,
    command: str,
    values: dict[str, str],
    config: dict[str, Any],
    stdin: bytes,
    version: str,
) -> Request:
    from libcni.attachment import Attachment
    from libcni.skel.request import Request
    from libcni.version import check_negotiated, check_verb

    check_negotiated(version, plugin.versions)
    check_verb(command, version)
    config = validated(plugin, command, config)
    network = env.check_network_name(config.get("name"))
    override = env.variable("CNI_NETNS_OVERRIDE").lower() in ("1", "true")
    return Request(
        command,
        plugin.type,
        config,
        version,
        Attachment(network, values["CNI_CONTAINERID"], values["CNI_IFNAME"]),
        values["CNI_NETNS"],
        values["CNI_ARGS"],
        [directory for directory in values["CNI_PATH"].split(":") if directory],
        stdin,
        allow_own_netns=override,
    )


def validated(plugin: Plugin, command: str, config: dict[str, Any]) -> dict[str, Any]:
    """The configuration in canonical spelling, or CniError 7 saying what the schema expected.

    DEL and GC are not validated: they clean up whatever the configuration has become since ADD.
    """
    from libcni.schema.canonical import canonical

    validator: Any = __import__(f"{plugin.package}.validator", fromlist=("KEYS", "validate"))
    document: dict[str, Any] = canonical(config, validator.KEYS)
    if command not in ("DEL", "GC") and not validator.validate(document):
        from libcni.boot import full_boot

        full_boot()
        from libcni.schema.explain import rejection

        raise rejection(plugin.type, document)
    return document


def call(plugin: Plugin, request: Request) -> Result | None:
    """Call the verb of `request.command`; a verb the plugin does not have does nothing."""
    verb = VERB_MODULES[request.command]
    if verb not in plugin.verbs:
        return None
    module = __import__(f"{plugin.package}.{verb}", fromlist=(verb,))
    result: Result | None = getattr(module, verb)(request)
    return result


def _perform(plugin: Plugin, request: Request) -> int:
    """Call the verb and write its result; undo it if either fails."""
    from libcni import interrupt

    interrupt.install()
    try:
        if plugin.enters_netns and request.command in ("ADD", "CHECK"):
            # Before anything acts: a path that is not the container's must change nothing.
            request.netns()
        result = call(plugin, request)
        if result is not None:
            # Of the verbs ADD alone: what the others have done by now is not undone.
            interrupt.checkpoint()
            from libcni.jsontext import dumps_indented

            text = dumps_indented(result.to_json(request.version))
            if not _write(1, text.encode("utf-8", "replace")):
                raise CniError(IO_FAILURE, "cannot write the result to stdout")
        request.undo.commit()
    except BaseException as error:
        request.undo.run()
        return _fail(error, request.version)
    return 0


def _fail(error: BaseException, version: str) -> int:
    """Write the error object; anything unforeseen is code 999 with its place in details."""
    if not isinstance(error, CniError):
        error = _internal(error)
    from libcni.jsontext import dumps_indented

    _write(1, dumps_indented(error.to_json(version)).encode("utf-8", "replace"))
    return 1


def _internal(error: BaseException) -> CniError:
    place = ""
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        place = f"{code.co_filename}:{trace.tb_lineno} in {code.co_name}"
        trace = trace.tb_next
    return CniError(
        INTERNAL, f"{error.__class__.__name__}: {error}", f"a fault of the plugin, at {place}"
    )


def _write(fd: int, data: bytes) -> bool:
    """Write everything; False when the other end does not take it."""
    from libcni.fs import write_all

    try:
        write_all(fd, data)
    except OSError:
        return False
    return True
