# SPDX-License-Identifier: Apache-2.0
"""The results of past ADDs on disk, for CHECK, DEL and GC: the cache of Go's libcni.

Byte-compatible, so that either can go on with what the other left: one file
`<directory>/results/<network>-<container ID>-<interface>` per attachment. Better than Go's in
two ways: a file is replaced atomically and synced (a power loss has left empty ones), and a
name that could lead out of the directory is refused.
"""

from __future__ import annotations

import base64
import json
import logging
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from libcni import fs
from libcni.jsontext import loads
from libcni.skel.env import check_container_id, check_ifname, check_network_name
from libcni.types.errors import (
    DECODING_FAILURE,
    INVALID_ENVIRONMENT,
    IO_FAILURE,
    UNKNOWN_CONTAINER,
    CniError,
)
from libcni.types.result import Result

DEFAULT_DIRECTORY = "/var/lib/cni"
KIND = "cniCacheV1"
#: Bytes of a file name (NAME_MAX is 255), with room for the suffix of the temporary file.
_MAX_NAME = 240

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class NetworkAttachment:
    """What is remembered of one ADD. config: the list as written; result: as cached, raw."""

    container_id: str
    network: str
    if_name: str
    config: bytes = b""
    netns: str = ""
    cni_args: list[tuple[str, str]] = field(default_factory=list)
    capability_args: dict[str, Any] = field(default_factory=dict)
    result: dict[str, Any] = field(default_factory=dict)

    def encode(self) -> bytes:
        """The bytes that Go's encoding/json writes for its `cachedInfo`."""
        document: dict[str, Any] = {
            "kind": KIND,
            "containerId": self.container_id,
            "config": base64.b64encode(self.config).decode(),
            "ifName": self.if_name,
            "networkName": self.network,
        }
        if self.netns:
            document["netns"] = self.netns
        if self.cni_args:
            document["cniArgs"] = [list(pair) for pair in self.cni_args]
        if self.capability_args:
            document["capabilityArgs"] = _sorted(self.capability_args)
        if self.result:
            document["result"] = _sorted(self.result)
        text = json.dumps(document, ensure_ascii=False, separators=(",", ":"))
        for character in "<>&\u2028\u2029":  # found in strings only
            text = text.replace(character, f"\\u{ord(character):04x}")
        return text.encode("utf-8", "replace")

    @classmethod
    def decode(cls, data: bytes, path: str) -> NetworkAttachment | None:
        """Read a cache file; None when it is of another kind (before 2019: the bare result).

        Raises CniError 6 when it is damaged.
        """
        document = loads(data, f"cached result {path}")
        if not isinstance(document, dict):
            raise CniError(DECODING_FAILURE, f"cached result {path} is not a JSON object")
        if document.get("kind") != KIND:
            return None

        def member(name: str, kind: type) -> Any:
            value = document.get(name)
            if value is None:
                return kind()
            if not isinstance(value, kind):
                raise CniError(DECODING_FAILURE, f"cached result {path}: {name} is {value!r}")
            return value

        arguments = member("cniArgs", list)
        for pair in arguments:
            if not (
                isinstance(pair, list)
                and len(pair) == 2
                and all(isinstance(part, str) for part in pair)
            ):
                raise CniError(DECODING_FAILURE, f"cached result {path}: cniArgs has {pair!r}")
        try:
            config = base64.b64decode(member("config", str), validate=True)
        except ValueError as error:
            raise CniError(DECODING_FAILURE, f"cached result {path}: config: {error}") from None
        return cls(
            member("containerId", str),
            member("networkName", str),
            member("ifName", str),
            config,
            member("netns", str),
            [(key, value) for key, value in arguments],
            member("capabilityArgs", dict),
            member("result", dict),
        )


def _sorted(value: Any) -> Any:
    """Maps in the order of their keys, as Go prints them."""
    if isinstance(value, dict):
        return {key: _sorted(value[key]) for key in sorted(value)}
    if isinstance(value, list | tuple):
        return [_sorted(item) for item in value]
    return value


class Cache:
    """The cache below one directory, which is made when first needed (mode 0700)."""

    def __init__(self, directory: str | Path = DEFAULT_DIRECTORY) -> None:
        self.directory = Path(directory)
        self.results = self.directory / "results"

    def path(self, network: str, container_id: str, if_name: str) -> Path:
        """The file of an attachment. Raises CniError 3, 4 or 7 unless all three names are good."""
        check_network_name(network)
        if not container_id:
            raise CniError(UNKNOWN_CONTAINER, "missing containerID")
        check_container_id(container_id)
        if not if_name:
            raise CniError(INVALID_ENVIRONMENT, "interface name is empty")
        check_ifname(if_name)
        return self.results / f"{network}-{container_id}-{if_name}"

    def check_writable_name(self, network: str, container_id: str, if_name: str) -> None:
        """Raise CniError 4 when the file's name would be too long; for asking before an ADD."""
        name = self.path(network, container_id, if_name).name
        if len(name.encode()) > _MAX_NAME:
            raise CniError(
                INVALID_ENVIRONMENT,
                f"the cached result's file name would have {len(name.encode())} bytes",
                f"network name, container ID and interface name may have {_MAX_NAME - 2} together",
            )

    def add(self, attachment: NetworkAttachment) -> None:
        """Remember an attachment, complete or not at all. Idempotent. Raises CniError 5."""
        path = self.path(attachment.network, attachment.container_id, attachment.if_name)
        try:
            fs.ensure_directory(str(self.results), 0o700)
            fs.write_atomic(str(path), attachment.encode(), 0o600)
            directory = os.open(self.results, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        except OSError as error:
            raise CniError(
                IO_FAILURE, f"cannot write cached result {path}: {error.strerror}"
            ) from error

    def remove(self, network: str, container_id: str, if_name: str) -> None:
        """Forget an attachment. Idempotent; what cannot be removed is logged, as DEL is done.

        With it go the temporary files of runtimes that were killed while they wrote it.
        """
        path = self.path(network, container_id, if_name)
        for each in (path, *self._temporaries(path)):
            self._unlink(each)

    @staticmethod
    def _unlink(path: Path) -> None:
        try:
            path.unlink(missing_ok=True)
        except OSError as error:
            _log.warning("cannot remove cached result %s: %s", path, error.strerror)

    def _temporaries(self, path: Path) -> list[Path]:
        """What `fs.write_atomic` would have renamed to `path`.

        An interface may be called `eth0.77.tmp`: what says that it is of an attachment of that
        name stays.
        """
        try:
            names = os.listdir(self.results)
        except OSError:
            return []
        found = []
        for name in names:
            middle = name.removeprefix(f"{path.name}.").removesuffix(".tmp")
            if name == f"{path.name}.{middle}.tmp" and middle.isdecimal():
                found.append(self.results / name)
        return [each for each in found if self._name_inside(each) != each.name]

    def _name_inside(self, path: Path) -> str:
        """The file name of the attachment that the file at `path` describes; "" for none."""
        try:
            attachment = NetworkAttachment.decode(path.read_bytes(), path.name)
        except (OSError, CniError):
            return ""
        if attachment is None:
            return ""
        return "-".join((attachment.network, attachment.container_id, attachment.if_name))

    def quarantine(self, network: str, container_id: str, if_name: str, why: str) -> None:
        """Move a damaged file to `<directory>/corrupt`, out of the way of the next DEL."""
        self._put_aside(self.path(network, container_id, if_name), why)

    def quarantine_all(self, network: str, valid: set[tuple[str, str]]) -> None:
        """`quarantine` for GC: every damaged file of a network, but for valid attachments.

        A damaged file tells its network by its name alone, and so may be of another whose name
        goes on with a hyphen: that one's DEL does without it either way.
        """
        keep = {f"{network}-{container_id}-{if_name}" for container_id, if_name in valid}
        try:
            names = sorted(os.listdir(self.results))
        except OSError:
            return
        for name in names:
            # A temporary file may be of an ADD that is under way in such another network.
            if not name.startswith(f"{network}-") or name in keep or name.endswith(".tmp"):
                continue
            path = self.results / name
            try:
                NetworkAttachment.decode(path.read_bytes(), name)
            except CniError as error:
                self._put_aside(path, str(error))
            except OSError:
                continue

    def _put_aside(self, path: Path, why: str) -> None:
        aside = self.directory / "corrupt" / path.name
        try:
            fs.ensure_directory(str(aside.parent), 0o700)
            path.replace(aside)
            _log.warning("cached result moved to %s: %s", aside, why)
        except OSError:
            _log.warning("cached result %s is not usable: %s", path, why)
            self._unlink(path)

    def load(self, network: str, container_id: str, if_name: str) -> NetworkAttachment | None:
        """What is remembered; None when nothing is. Raises CniError 5 or 6 (damaged)."""
        path = self.path(network, container_id, if_name)
        data = self._read(path)
        if data is None:
            return None
        attachment = NetworkAttachment.decode(data, str(path))
        if attachment is None:
            document = loads(data, f"cached result {path}")
            return NetworkAttachment(container_id, network, if_name, result=document)
        return attachment

    def result(
        self, network: str, container_id: str, if_name: str, config_version: str
    ) -> Result | None:
        """The cached result; None when there is none. Raises CniError 1, 5 or 6."""
        attachment = self.load(network, container_id, if_name)
        if attachment is None:
            return None
        if not attachment.result:
            raise CniError(
                DECODING_FAILURE,
                f"cached result {self.path(network, container_id, if_name)} holds no result",
            )
        return Result.from_json(attachment.result, config_version)

    @staticmethod
    def _read(path: Path) -> bytes | None:
        try:
            return path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise CniError(
                IO_FAILURE, f"cannot read cached result {path}: {error.strerror}"
            ) from error

    def attachments(self, container_id: str = "") -> list[NetworkAttachment]:
        """Every attachment remembered (of one container), by file name; damaged ones left out."""
        try:
            names = sorted(os.listdir(self.results))
        except FileNotFoundError:
            return []
        except OSError as error:
            raise CniError(IO_FAILURE, f"cannot list {self.results}: {error.strerror}") from error
        found = []
        for name in names:
            try:
                data = (self.results / name).read_bytes()
                attachment = NetworkAttachment.decode(data, name)
            except (OSError, CniError):
                continue
            if attachment is None or not attachment.if_name or not attachment.network:
                continue
            if container_id and attachment.container_id != container_id:
                continue
            # A temporary file that a crash left behind is no second attachment.
            parts = (attachment.network, attachment.container_id, attachment.if_name)
            if name == "-".join(parts):
                found.append(attachment)
        return found
