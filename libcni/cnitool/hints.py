# SPDX-License-Identifier: Apache-2.0
"""Errors for people: what failed, the details, and what to do about it."""

from __future__ import annotations

import itertools
import json
import os
import re
import shlex
import sys
from typing import Any

from libcni import conf
from libcni.api import PluginFailedError
from libcni.cnitool import holder, settings
from libcni.cnitool.execution import UndoneError
from libcni.cnitool.presence import alike
from libcni.conf import NoConfigsFoundError, NotFoundError
from libcni.types.errors import (
    CONFLICT,
    DECODING_FAILURE,
    INCOMPATIBLE_VERSION,
    INVALID_ENVIRONMENT,
    INVALID_NETNS,
    INVALID_NETWORK_CONFIG,
    IO_FAILURE,
    PLUGIN_NOT_AVAILABLE,
    TRY_AGAIN_LATER,
    UNKNOWN_CONTAINER,
    UNSUPPORTED_FIELD,
    CniError,
)

#: With these a plugin refuses what it was asked before it touches anything.
_REFUSALS = (
    INCOMPATIBLE_VERSION,
    UNSUPPORTED_FIELD,
    INVALID_ENVIRONMENT,
    DECODING_FAILURE,
    INVALID_NETWORK_CONFIG,
    INVALID_NETNS,
    PLUGIN_NOT_AVAILABLE,
)


def report(error: CniError, verb: str, options: dict[str, Any]) -> None:
    """Write the error to stderr, with its code if a plugin gave it, and a hint if there is one."""
    print(f"Error: {error.msg}", file=sys.stderr)
    if error.details:
        print(f"Details: {error.details}", file=sys.stderr)
    if isinstance(error, PluginFailedError):
        print(f"Code: {error.code}", file=sys.stderr)
    for line in hints(error, verb, options):
        print(f"Hint: {line}", file=sys.stderr)


def hints(error: CniError, verb: str, options: dict[str, Any]) -> list[str]:
    """What may mend it, likeliest first; what destroys something last, and only if it may be so.

    options: those of the command line, as `vars` gives them.
    """
    text = str(error)
    if isinstance(error, NoConfigsFoundError | NotFoundError):
        origin = "from" if os.environ.get("NETCONFPATH") else "the default of"
        found = [f"that directory is {origin} NETCONFPATH; `cnitool list` shows its networks"]
        return found + (_about_attachments(options) if verb in ("check", "del", "gc") else [])
    if verb == "add" and _is_conflict(error):
        return _about_conflict(error, options)
    meant = settings.named_namespace(options.get("netns") or "")
    found = [f"did you mean {meant}?"] if meant else []
    if "failed to find plugin" in text or "no paths provided" in text:
        for type_ in re.findall(r'failed to find plugin "([^"]*)"', text):
            found += [f"did you mean {name}?" for name in alike(type_)]
        found.append(f"set CNI_PATH to the directories with plugins; {_about_plugin_path()}")
    elif "CNI_NETNS" in text or error.code == INVALID_NETNS or "unknown FS magic" in text:
        if verb == "check" and not os.path.exists(options["netns"]):
            found.append(f"it is gone; to remove what is left of it: {_command('del', options)}")
        elif not meant:
            found.append("`ip netns add NAME` makes a namespace at /run/netns/NAME")
    elif error.code == UNKNOWN_CONTAINER:
        found.append(f"this shows what is attached: {_command('list', options)}")
        found.append(f"and this attaches it: {_command('add', options)}")
    elif error.code == TRY_AGAIN_LATER:
        found.append("the cause passes by itself: try again")
    elif error.code == INCOMPATIBLE_VERSION:
        found.append("change cniVersion in the network's configuration")
    elif error.code in (DECODING_FAILURE, INVALID_NETWORK_CONFIG):
        if _is_of_cap_args(text):
            found.append("runtimeConfig holds what CAP_ARGS gives: mend it there")
        elif "rename it to" in text or "did you mean" in text:
            pass  # said already
        elif _validate_finds_something(options):
            found.append("`cnitool validate` says what is wrong in the configuration files")
    elif os.geteuid() and ("not permitted" in text or "denied" in text):
        found.append("plugins need root's rights")
    if verb == "add" and _may_have_left(error) and not _is_attached(options):
        found.append(_removal(error, options))
    return found


def _about_attachments(options: dict[str, Any]) -> list[str]:
    """What is attached to a network that has no configuration any more, and how to get that back.

    For the operator to do: the cached one lacks plugins that lay in files beside the list.
    """
    cache = settings.cache(options.get("cache_dir") or "")
    network = options["network"]
    try:
        attached = [one for one in cache.attachments() if one.network == network]
    except CniError:
        return []
    if not attached:
        return []
    found = [
        f"the cache has an attachment to it: {one.container_id} {one.if_name} "
        f"({one.netns or 'its namespace is not known'})"
        for one in attached
    ]
    found.append("del and gc need the network's configuration back to detach it")
    for one in attached:
        if _is_configuration_of(network, one.config):
            source = cache.results / "-".join((network, one.container_id, one.if_name))
            directory = settings.configuration_directory()
            target = _free_file(directory, network)
            words = shlex.join(["jq", "-r", ".config", str(source)])
            if not os.path.isdir(directory):
                words = f"{shlex.join(['mkdir', '-p', directory])} && {words}"
            found.append(
                "the cache has it as it was at the ADD: "
                f"{words} | base64 -d >{shlex.quote(target)}"
            )
            break
    return found


def _free_file(directory: str, network: str) -> str:
    """Where a list of the network can be put: another one may have its name, with another name."""
    names = itertools.chain([network], (f"{network}-{number}" for number in itertools.count(2)))
    paths = (f"{directory}/{name}.conflist" for name in names)
    return next(path for path in paths if not os.path.lexists(path))


def _is_configuration_of(network: str, config: bytes) -> bool:
    """Whether a cached configuration is one of the network with its plugins in it."""
    try:
        found = conf.network_conf_from_bytes(config)
    except CniError:
        return False
    return found.name == network and bool(found.plugins)


def _about_plugin_path() -> str:
    """What CNI_PATH is, and which of its directories are none."""
    directories = [directory for directory in settings.plugin_path() if directory]
    verb = "is" if os.environ.get("CNI_PATH") else "is not set, which stands for"
    missing = [directory for directory in directories if not os.path.isdir(directory)]
    remark = f", and there is no {' and no '.join(missing)}" if missing else ""
    return f"it {verb} {':'.join(directories)}{remark}"


def _is_of_cap_args(text: str) -> bool:
    """Whether an error names a key of runtimeConfig that CAP_ARGS gives."""
    try:
        given = json.loads(os.environ.get("CAP_ARGS") or "{}")
    except ValueError:
        return False
    named = re.findall(r"runtimeConfig\.(\w+)", text)
    return isinstance(given, dict) and any(key in given for key in named)


def _is_conflict(error: CniError) -> bool:
    """Whether something was there that ADD had to make, in our plugins' words or those of Go's."""
    text = str(error)
    return error.code == CONFLICT or "duplicate allocation" in text or "already exists" in text


def _about_conflict(error: CniError, options: dict[str, Any]) -> list[str]:
    check, delete = _command("check", options), _command("del", options)
    if _is_attached(options):
        return [
            f"it is attached already; this looks whether it is whole: {check}",
            f"to attach it anew, detach it first, if nothing uses it: {delete}",
        ]
    found = [_removal(error, options)] if _has_surely_left(error) else []
    other = _other_holder(str(error), options)
    if other is not None:
        return found + _about_holder(other, options)
    if not found and _is_of_the_attachment(str(error), options):
        return [f"if an ADD that was cut short left it, this removes it: {delete}"]
    return found


def _other_holder(text: str, options: dict[str, Any]) -> holder.Holder | None:
    """The attachment that has what was wanted, if the error names it and it is another one."""
    found = holder.named_in(text)
    if found is None:
        return None
    mine = settings.container_id(options["netns"]), settings.interface(options.get("ifname") or "")
    return None if found.may_be(*mine) else found


def _about_holder(other: holder.Holder, options: dict[str, Any]) -> list[str]:
    """How to detach the attachment that has what was wanted; [] when that cannot be told."""
    try:
        cached = holder.detachable(other, options["network"], options.get("cache_dir") or "")
    except CniError:
        return []
    found = []
    for one in cached:
        ifname = "" if one.if_name == settings.interface("") else one.if_name
        theirs = {"network": one.network, "netns": one.netns, "ifname": ifname}
        command = _command("del", {**options, **theirs})
        found.append(f"{one.netns} has it; this detaches that, if nothing uses it: {command}")
    return found


def _is_of_the_attachment(conflict: str, options: dict[str, Any]) -> bool:
    """Whether what is in the way may be this attachment's own, so that its DEL would remove it.

    A device of another kind in the place of a bridge is not, even if it has the same name.
    """
    name = settings.interface(options.get("ifname") or "")
    names_it = re.search(rf"(?<![\w.-]){re.escape(name)}(?![\w.-])", conflict) is not None
    return "duplicate allocation" in conflict or (names_it and "but is not a" not in conflict)


def _removal(error: CniError, options: dict[str, Any]) -> str:
    """How to remove what a failed ADD has left, and whether something surely is left."""
    delete = _command("del", options)
    if not isinstance(error, PluginFailedError):
        return f"to remove what is left of it: {delete}"
    if not error.done:
        return f"to remove what may be left of it: {delete}"
    attached = "the plugins before it have attached it already"
    if _fails_del_too(error):
        return (
            f"{attached}; first correct the configuration or CNI_PATH, as del asks this plugin "
            f"too; then, to remove what is left: {delete}"
        )
    return f"{attached}; to remove what is left: {delete}"


def _fails_del_too(error: CniError) -> bool:
    """Whether the plugin would fail DEL, too, for what it failed ADD for."""
    return error.code == INCOMPATIBLE_VERSION or any(
        words in str(error) for words in ("failed to find plugin", "invalid plugin name")
    )


def _validate_finds_something(options: dict[str, Any]) -> bool:
    """Whether `cnitool validate` has anything to say of the network's file.

    True as well when no file can be read as that network: then it says why.
    """
    # What it needs is not paid for by commands that succeed.
    from libcni.cnitool.validation import check_file

    directory = settings.configuration_directory()
    for file in conf.conf_files(directory, [".conflist", ".conf", ".json"]):
        found = check_file(file)
        if found.network is not None and found.network.name == options.get("network"):
            return bool(found.faults or found.warnings)
    return True


def _has_surely_left(error: CniError) -> bool:
    """Whether plugins of a failed ADD have succeeded before it failed."""
    if isinstance(error, PluginFailedError):
        return error.done > 0
    # All of them are done, and their result could not be remembered.
    return error.code == IO_FAILURE and "cached result" in error.msg


def _may_have_left(error: CniError) -> bool:
    """Whether the plugins of a failed ADD may have changed something that is there yet."""
    if _has_surely_left(error) or not isinstance(error, PluginFailedError):
        return _has_surely_left(error)
    return error.code not in _REFUSALS and not isinstance(error.__cause__, UndoneError)


def _is_attached(options: dict[str, Any]) -> bool:
    """Whether an earlier ADD of this attachment succeeded, and no DEL has since."""
    try:
        container = settings.container_id(options["netns"])
        interface = settings.interface(options.get("ifname") or "")
        cache = settings.cache(options.get("cache_dir") or "")
        return cache.load(options["network"], container, interface) is not None
    except CniError:
        return False


def _command(verb: str, options: dict[str, Any]) -> str:
    """A command line about the same attachment, for pasting into a shell."""
    words = [settings.program(), verb]
    if verb != "list":
        words += [options["network"], options["netns"]]
        interface = options.get("ifname") or os.environ.get("CNI_IFNAME")
        if interface:
            words += ["-i", interface]
    if options.get("cache_dir"):
        words += ["--cache-dir", options["cache_dir"]]
    return shlex.join(words)
