# SPDX-License-Identifier: Apache-2.0
"""The runtime's side of the protocol: attach and detach containers by running plugins.

The public API of Go's libcni in Python's spelling. Cold code, never imported by a plugin.
Source: CNI spec 1.1.0 sections 2 and 3 (order of plugins, derived configuration, caching).

The caller's duties, as in Go: no two operations at once for one container, no GC while others
run, and a DEL after every ADD, a failed one included.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol

from libcni import cache as cache_module
from libcni import version
from libcni.cache import Cache, NetworkAttachment
from libcni.conf import NetworkConfigList, PluginConfig
from libcni.invoke.exec import exec_plugin, result_document
from libcni.invoke.find import find_in_path
from libcni.jsontext import loads
from libcni.types.errors import (
    DECODING_FAILURE,
    INCOMPATIBLE_VERSION,
    INTERNAL,
    UNKNOWN_CONTAINER,
    CniError,
)
from libcni.types.result import Result

#: Where plugins are looked for when the caller does not say.
DEFAULT_PATH = ("/opt/cni/bin",)
#: Seconds one plugin may take. kubelet gives a whole sandbox four minutes.
DEFAULT_TIMEOUT = 120.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RuntimeConf:
    """One attachment: the arguments of a call, without the network's configuration.

    args: pairs for CNI_ARGS. capability_args: capability name to value; each plugin gets those
    it declares as `runtimeConfig`. cache_dir: overrides the default cache directory; deprecated.
    """

    container_id: str
    netns: str
    if_name: str
    args: list[tuple[str, str]] = field(default_factory=list)
    capability_args: dict[str, Any] = field(default_factory=dict)
    cache_dir: str = ""


@dataclass(frozen=True)
class PluginInfo:
    """A plugin's answer to VERSION."""

    cni_version: str
    supported_versions: tuple[str, ...]


@dataclass(frozen=True, order=True)
class GCAttachment:
    """An attachment that is still wanted."""

    container_id: str
    if_name: str


class PluginFailedError(CniError):
    """A plugin of a list failed; code and details are its own.

    done: how many plugins of the list had succeeded with the verb before it.
    """

    def __init__(self, plugin: PluginConfig, verb: str, done: int, error: CniError) -> None:
        name = f' name="{plugin.name}"' if plugin.name else ""
        text = f'plugin type="{plugin.type}"{name} failed ({verb}): {error.msg}'
        super().__init__(error.code, text, error.details)
        self.done = done


class Executor(Protocol):
    """How plugins are found and run; tests and runtimes with their own ways give another."""

    def find_in_path(self, name: str, path: list[str]) -> str:
        """See `libcni.invoke.find.find_in_path`."""

    def exec_plugin(
        self, path: str, overrides: dict[str, str], stdin: bytes, timeout: float
    ) -> bytes:
        """See `libcni.invoke.exec.exec_plugin`."""


class DefaultExecutor:
    """From disk, as processes of their own."""

    def find_in_path(self, name: str, path: list[str]) -> str:
        """See `libcni.invoke.find.find_in_path`."""
        return find_in_path(name, path)

    def exec_plugin(
        self, path: str, overrides: dict[str, str], stdin: bytes, timeout: float
    ) -> bytes:
        """See `libcni.invoke.exec.exec_plugin`."""
        return exec_plugin(path, overrides, stdin, timeout)


class CNIConfig:
    """The plugins of `path` and the cache below `cache_dir`.

    timeout: seconds for each execution of a plugin. Every method raises CniError; a plugin's
    own error keeps its code.
    """

    def __init__(
        self,
        path: Iterable[str] = DEFAULT_PATH,
        cache_dir: str | Path = "",
        executor: Executor | None = None,
        timeout: float = DEFAULT_TIMEOUT,
    ) -> None:
        self.path = list(path)
        self.cache_dir = str(cache_dir)
        self.executor: Executor = executor or DefaultExecutor()
        self.timeout = timeout

    # ---- lists

    def add_network_list(self, network: NetworkConfigList, rt: RuntimeConf) -> Result:
        """ADD: every plugin in order, each with the result before it; the last is returned.

        The result is cached before this returns. Stops at the first error and undoes nothing:
        `del_network_list` is the caller's to call. Nothing is cached on failure.
        """
        result: Result | None = None
        self._cache(rt).check_writable_name(network.name, rt.container_id, rt.if_name)
        for done, plugin in enumerate(network.plugins):
            try:
                result = self._add(network.name, network.cni_version, plugin, result, rt)
            except CniError as error:
                raise PluginFailedError(plugin, "add", done, error) from error
        if result is None:
            raise CniError(INTERNAL, f"network {network.name!r} has no plugins")
        self._remember(network.name, network.cni_version, network.bytes, result, rt)
        return result

    def check_network_list(self, network: NetworkConfigList, rt: RuntimeConf) -> None:
        """CHECK: every plugin in order with the cached result; nothing when disableCheck.

        Raises CniError 1 before 0.4.0, 3 without a cached result (the container was not added,
        or was deleted since: spec section 2 forbids CHECK then; Go asks the plugins, which have
        to refuse), and for a damaged cache.
        """
        _require_check(network.cni_version)
        if network.disable_check:
            return
        result = self._attached(network.name, network.cni_version, rt)
        for done, plugin in enumerate(network.plugins):
            try:
                self._act("CHECK", network.name, network.cni_version, plugin, result, rt)
            except CniError as error:
                raise PluginFailedError(plugin, "check", done, error) from error

    def del_network_list(self, network: NetworkConfigList, rt: RuntimeConf) -> None:
        """DEL: every plugin in reverse order with the cached result. Idempotent.

        A damaged or unusable cached result is put aside and DEL goes on without it. Stops at
        the first plugin that fails, and keeps the cached result for the next try.
        """
        result = self._cached_or_none(network.name, network.cni_version, rt)
        for done, plugin in enumerate(reversed(network.plugins)):
            try:
                self._act("DEL", network.name, network.cni_version, plugin, result, rt)
            except CniError as error:
                raise PluginFailedError(plugin, "delete", done, error) from error
        self._forget(network.name, rt)

    def gc_network_list(
        self, network: NetworkConfigList, valid: Iterable[GCAttachment] | None
    ) -> None:
        """GC: DEL every cached attachment of the network that is not in `valid`, then GC plugins.

        None means that nothing is valid, as in Go. Does nothing when disableGC. Goes on after
        errors and raises one CniError that lists them. Damaged cached results of what is not
        valid are put aside. The caller keeps ADD and DEL away.
        """
        if network.disable_gc:
            return
        keep = sorted(set(valid or ()))
        errors: list[CniError] = []
        for attachment in self._cache().attachments():
            key = GCAttachment(attachment.container_id, attachment.if_name)
            if attachment.network != network.name or key in keep:
                continue
            rt = RuntimeConf(
                attachment.container_id,
                attachment.netns,
                attachment.if_name,
                attachment.cni_args,
                attachment.capability_args,
            )
            try:
                self.del_network_list(network, rt)
            except CniError as error:
                text = f"failed to delete stale attachment {key.container_id} {key.if_name}"
                errors.append(CniError(error.code, f"{text}: {error.msg}", error.details))
        self._cache().quarantine_all(network.name, {(a.container_id, a.if_name) for a in keep})
        if version.greater_or_equal(network.cni_version, "1.1.0"):
            entries = [{"containerID": a.container_id, "ifname": a.if_name} for a in keep]
            # The second name is what it was called before the specification was released.
            inject = {"cni.dev/valid-attachments": entries, "cni.dev/attachments": entries}
            for plugin in network.plugins:
                try:
                    self._plain("GC", network, plugin, inject)
                except CniError as error:
                    text = f"failed to GC plugin {plugin.type}: {error.msg}"
                    errors.append(CniError(error.code, text, error.details))
        if errors:
            raise _joined(errors)

    def get_status_network_list(self, network: NetworkConfigList) -> None:
        """STATUS of every plugin in order; the first error is raised as the plugin gave it.

        Does nothing before 1.1.0, which does not have the verb.
        """
        if not version.greater_or_equal(network.cni_version, "1.1.0"):
            return
        for plugin in network.plugins:
            self._plain("STATUS", network, plugin, {})

    def validate_network_list(self, network: NetworkConfigList) -> list[str]:
        """The capabilities that any of the plugins declares, sorted.

        Raises CniError naming each plugin that is absent or does not support the version.
        """
        errors = []
        for plugin in network.plugins:
            try:
                self._validate(plugin.type, network.cni_version)
            except CniError as error:
                errors.append(error)
        if errors:
            raise _joined(errors)
        return sorted({c for p in network.plugins for c, on in p.capabilities.items() if on})

    def get_network_list_cached_result(
        self, network: NetworkConfigList, rt: RuntimeConf
    ) -> Result | None:
        """The result of the last ADD; None when there is none. Raises CniError if damaged."""
        return self._cached(network.name, network.cni_version, rt)

    def get_network_list_cached_config(
        self, network: NetworkConfigList, rt: RuntimeConf
    ) -> tuple[bytes, RuntimeConf] | None:
        """Configuration and arguments of the last ADD; None when there is none."""
        return self._cached_config(network.name, rt)

    # ---- single plugins, which spec 1.0.0 removed

    def add_network(self, plugin: PluginConfig, rt: RuntimeConf) -> Result:
        """`add_network_list` for a configuration of one plugin."""
        self._cache(rt).check_writable_name(plugin.name, rt.container_id, rt.if_name)
        result = self._add(plugin.name, plugin.cni_version, plugin, None, rt)
        self._remember(plugin.name, plugin.cni_version, plugin.bytes, result, rt)
        return result

    def check_network(self, plugin: PluginConfig, rt: RuntimeConf) -> None:
        """`check_network_list` for a configuration of one plugin."""
        _require_check(plugin.cni_version)
        result = self._attached(plugin.name, plugin.cni_version, rt)
        self._act("CHECK", plugin.name, plugin.cni_version, plugin, result, rt)

    def del_network(self, plugin: PluginConfig, rt: RuntimeConf) -> None:
        """`del_network_list` for a configuration of one plugin."""
        result = self._cached_or_none(plugin.name, plugin.cni_version, rt)
        self._act("DEL", plugin.name, plugin.cni_version, plugin, result, rt)
        self._forget(plugin.name, rt)

    def validate_network(self, plugin: PluginConfig) -> list[str]:
        """`validate_network_list` for a configuration of one plugin."""
        self._validate(plugin.type, plugin.cni_version)
        return sorted(name for name, enabled in plugin.capabilities.items() if enabled)

    def get_network_cached_result(self, plugin: PluginConfig, rt: RuntimeConf) -> Result | None:
        """`get_network_list_cached_result` for a configuration of one plugin."""
        return self._cached(plugin.name, plugin.cni_version, rt)

    def get_network_cached_config(
        self, plugin: PluginConfig, rt: RuntimeConf
    ) -> tuple[bytes, RuntimeConf] | None:
        """`get_network_list_cached_config` for a configuration of one plugin."""
        return self._cached_config(plugin.name, rt)

    # ---- both

    def get_cached_attachments(self, container_id: str = "") -> list[NetworkAttachment]:
        """Every cached attachment, of one container if named; unreadable ones are left out."""
        return self._cache().attachments(container_id)

    def get_version_info(self, type: str) -> PluginInfo:
        """What the plugin answers to VERSION; 0.1.0 for one too old to know the verb."""
        path = self.executor.find_in_path(type, self.path)
        # Plugins built against an old skel want these variables even for VERSION.
        overrides = _variables("VERSION", RuntimeConf("", "dummy", "dummy"), ["dummy"])
        stdin = json.dumps({"cniVersion": version.NEWEST}).encode()
        try:
            output = self.executor.exec_plugin(path, overrides, stdin, self.timeout)
        except CniError as error:
            if error.msg == "unknown CNI_COMMAND: VERSION":
                return PluginInfo("0.1.0", ("0.1.0",))
            raise
        return _decode_version(path, output)

    # ---- one plugin

    def _add(
        self,
        name: str,
        cni_version: str,
        plugin: PluginConfig,
        previous: Result | None,
        rt: RuntimeConf,
    ) -> Result:
        path = self.executor.find_in_path(plugin.type, self.path)
        output = self._execute("ADD", path, name, cni_version, plugin, previous, rt)
        return Result.from_json(result_document(path, output), cni_version)

    def _act(
        self,
        command: str,
        name: str,
        cni_version: str,
        plugin: PluginConfig,
        previous: Result | None,
        rt: RuntimeConf,
    ) -> None:
        path = self.executor.find_in_path(plugin.type, self.path)
        self._execute(command, path, name, cni_version, plugin, previous, rt)

    def _execute(
        self,
        command: str,
        path: str,
        name: str,
        cni_version: str,
        plugin: PluginConfig,
        previous: Result | None,
        rt: RuntimeConf,
    ) -> bytes:
        self._cache(rt).path(name, rt.container_id, rt.if_name)  # the names are good, or raises
        document = request_config(name, cni_version, plugin)
        runtime_config = {
            capability: rt.capability_args[capability]
            for capability, enabled in plugin.capabilities.items()
            if enabled and capability in rt.capability_args
        }
        if runtime_config:
            document["runtimeConfig"] = runtime_config
        if previous is not None:
            document["prevResult"] = render(previous, cni_version)
        return self.executor.exec_plugin(
            path, _variables(command, rt, self.path), _encode(document), self.timeout
        )

    def _plain(
        self,
        command: str,
        network: NetworkConfigList,
        plugin: PluginConfig,
        inject: dict[str, Any],
    ) -> None:
        """A verb that names no container."""
        path = self.executor.find_in_path(plugin.type, self.path)
        document = request_config(network.name, network.cni_version, plugin) | inject
        self.executor.exec_plugin(
            path,
            _variables(command, RuntimeConf("", "", ""), self.path),
            _encode(document),
            self.timeout,
        )

    def _validate(self, type: str, cni_version: str) -> None:
        wanted = cni_version or "0.1.0"
        if wanted not in self.get_version_info(type).supported_versions:
            raise CniError(
                INCOMPATIBLE_VERSION,
                f'plugin {type} does not support config version "{wanted}"',
            )

    # ---- the cache

    def _cache(self, rt: RuntimeConf | None = None) -> Cache:
        """This object's directory, else the call's own, else the default."""
        own = self.cache_dir or (rt.cache_dir if rt else "")
        return Cache(own or cache_module.DEFAULT_DIRECTORY)

    def _remember(
        self, name: str, cni_version: str, config: bytes, result: Result, rt: RuntimeConf
    ) -> None:
        attachment = NetworkAttachment(
            rt.container_id,
            name,
            rt.if_name,
            config,
            rt.netns,
            list(rt.args),
            rt.capability_args,
            render(result, cni_version),
        )
        try:
            self._cache(rt).add(attachment)
        except CniError as error:
            text = f'failed to set network "{name}" cached result: {error.msg}'
            raise CniError(error.code, text, error.details) from error

    def _cached(self, name: str, cni_version: str, rt: RuntimeConf) -> Result | None:
        try:
            return self._cache(rt).result(name, rt.container_id, rt.if_name, cni_version)
        except CniError as error:
            text = f'failed to get network "{name}" cached result: {error.msg}'
            raise CniError(error.code, text, error.details) from error

    def _attached(self, name: str, cni_version: str, rt: RuntimeConf) -> Result:
        """The cached result for CHECK, which is of no use without."""
        result = self._cached(name, cni_version, rt)
        if result is None:
            raise CniError(
                UNKNOWN_CONTAINER,
                f'container {rt.container_id} is not attached to network "{name}" by {rt.if_name}',
                f"no result of an ADD is cached at "
                f"{self._cache(rt).path(name, rt.container_id, rt.if_name)}",
            )
        return result

    def _cached_or_none(self, name: str, cni_version: str, rt: RuntimeConf) -> Result | None:
        """The cached result for DEL, for which nothing about the cache may be fatal."""
        cache = self._cache(rt)
        cache.path(name, rt.container_id, rt.if_name)
        if not version.greater_or_equal(cni_version, "0.4.0"):
            return None
        try:
            result = cache.result(name, rt.container_id, rt.if_name, cni_version)
            if result is not None:
                render(result, cni_version)
            return result
        except CniError as error:
            cache.quarantine(name, rt.container_id, rt.if_name, str(error))
            return None

    def _forget(self, name: str, rt: RuntimeConf) -> None:
        self._cache(rt).remove(name, rt.container_id, rt.if_name)

    def _cached_config(self, name: str, rt: RuntimeConf) -> tuple[bytes, RuntimeConf] | None:
        attachment = self._cache(rt).load(name, rt.container_id, rt.if_name)
        if attachment is None:
            return None
        if not attachment.config:
            raise CniError(
                DECODING_FAILURE,
                f'read cached network "{name}" config has wrong kind: bare result',
            )
        return attachment.config, replace(
            rt,
            args=attachment.cni_args or rt.args,
            capability_args=attachment.capability_args,
        )


def request_config(name: str, cni_version: str, plugin: PluginConfig) -> dict[str, Any]:
    """The configuration a plugin is given, before what depends on the verb (spec section 3).

    The network's name and version in, `capabilities` and reserved `cni.dev/` keys out, all else
    unchanged.
    """
    document = {
        key: value
        for key, value in plugin.document.items()
        if key != "capabilities" and not key.startswith("cni.dev/")
    }
    return document | {"cniVersion": cni_version, "name": name}


def render(result: Result, cni_version: str) -> dict[str, Any]:
    """The result's document; up to 0.2.0 also for one without addresses, which is no error here.

    Old plugins that only adjust something do return such results.
    """
    try:
        return result.to_json(cni_version or "0.1.0")
    except CniError:
        if result.ips or not cni_version < "0.3.0":
            raise
        return {"cniVersion": cni_version or "0.1.0", "dns": result.dns.to_json()}


def _variables(command: str, rt: RuntimeConf, path: list[str]) -> dict[str, str]:
    return {
        "CNI_COMMAND": command,
        "CNI_CONTAINERID": rt.container_id,
        "CNI_NETNS": rt.netns,
        "CNI_ARGS": ";".join(f"{key}={value}" for key, value in rt.args),
        "CNI_IFNAME": rt.if_name,
        "CNI_PATH": ":".join(path),
    }


def _encode(document: dict[str, Any]) -> bytes:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode(
        "utf-8", "replace"
    )


def _decode_version(path: str, output: bytes) -> PluginInfo:
    document = loads(output, f"VERSION answer of {path}")
    member = (
        {key.lower(): value for key, value in document.items()}
        if isinstance(document, dict)
        else {}
    )
    spoken, supported = member.get("cniversion"), member.get("supportedversions")
    if not isinstance(spoken, str) or not spoken:
        raise CniError(DECODING_FAILURE, f"VERSION answer of {path}: missing field cniVersion")
    if not supported:
        if spoken == "0.2.0":
            return PluginInfo(spoken, ("0.1.0", "0.2.0"))
        raise CniError(
            DECODING_FAILURE, f"VERSION answer of {path}: missing field supportedVersions"
        )
    if not isinstance(supported, list) or not all(isinstance(v, str) for v in supported):
        raise CniError(
            DECODING_FAILURE, f"VERSION answer of {path}: supportedVersions is {supported!r}"
        )
    return PluginInfo(spoken, tuple(supported))


def _require_check(cni_version: str) -> None:
    if not version.greater_or_equal(cni_version, "0.4.0"):
        raise CniError(
            INCOMPATIBLE_VERSION,
            f'configuration version "{cni_version}" does not support the CHECK command',
            "CHECK exists since 0.4.0",
        )


def _joined(errors: list[CniError]) -> CniError:
    if len(errors) == 1:
        return errors[0]
    return CniError(errors[0].code, "\n".join(str(error) for error in errors))
