# SPDX-License-Identifier: Apache-2.0
"""What an interface was like before ADD, in a file until DEL has restored it.

    <dataDir>/<containerID>_<ifname>.json     {"mac": …, "promisc": …, "mtu": …, "allmulti": …,
                                               "txQLen": …, "sysctl": {…}, "network": …,
                                               "container": …, "written": {…}, "since": …}

Name and keys are Go's, which passes over those from "sysctl" on: either side's DEL can use the
other's. written: by sysctl, the value that ADD has set, as it is configured and, last, as the
kernel shows it; not there while ADD is at it. since: seconds of the monotonic clock at the first
ADD; which of a container's attachments was first.
"""

from __future__ import annotations

import posix
from time import monotonic

from cni_tuning.config import path_of as path_in_net
from libcni.attachment import Attachment
from libcni.fs import Lock, ensure_directory, io_error, read_file, remove_file, write_atomic
from libcni.skel.env import check_ifname, is_identifier
from libcni.types.errors import CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

#: What the name of each file ends with.
SUFFIX = ".json"


def path_of(directory: str, attachment: Attachment) -> str:
    """The file of an attachment."""
    return f"{directory}/{attachment.container_id}_{attachment.ifname}{SUFFIX}"


class BackupsLock(Lock):
    """`with BackupsLock(directory):` no other plugin reads or changes backups, which is there.

    A container's attachments read and change each other's. Raises CniError 11 when another holds
    it for longer than `fs.LOCK_TIMEOUT`, CniError 5.
    """

    __slots__ = ()

    def _open(self) -> int:
        return posix.open(self.path, posix.O_RDONLY | posix.O_CLOEXEC)


def ensure_place(directory: str) -> None:
    """Make the directory. Idempotent. Raises CniError 5."""
    try:
        ensure_directory(directory)
    except OSError as error:
        raise io_error(error, "make directory", directory) from None


def is_there(directory: str) -> bool:
    """Whether there are backups; False for a file in the directory's place."""
    try:
        posix.stat(f"{directory}/")
    except (FileNotFoundError, NotADirectoryError):
        return False
    return True


def load(path: str) -> dict[str, Any]:
    """What an earlier ADD noted; empty when there is nothing, or nothing that can be read: a
    file that was cut short must not keep a DEL from succeeding."""
    try:
        return _read(path) or {}
    except OSError:
        return {}


def _read(path: str) -> dict[str, Any] | None:
    """What a file says, None when it is damaged. Raises OSError."""
    from libcni.jsontext import loads

    try:
        document = loads(read_file(path), path)
    except CniError:
        return None
    return document if isinstance(document, dict) else None


def sysctls_of(noted: dict[str, Any]) -> dict[str, str]:
    """Sysctls by name as they were, from a backup, which somebody may have edited."""
    found = {}
    sysctls = noted.get("sysctl")
    for name, value in sysctls.items() if isinstance(sysctls, dict) else ():
        try:
            if path_in_net(f"net/{name}", "") == name:
                found[name] = str(value)
        except CniError:
            continue
    return found


def written_of(noted: dict[str, Any]) -> dict[str, list[str]]:
    """By sysctl, what ADD has set it to, in the words of the configuration and, last, of the
    kernel; none of an older backup, or while ADD is at it."""
    written = noted.get("written")
    if not isinstance(written, dict):
        return {}
    return {
        name: [value for value in values if isinstance(value, str)]
        for name, values in written.items()
        if isinstance(values, list)
    }


def since(noted: dict[str, Any]) -> float:
    """When the attachment was first made; 0 when an older backup does not say."""
    found = noted.get("since")
    return found if isinstance(found, int | float) else 0


def save(path: str, before: dict[str, Any], network: str, container_id: str) -> None:
    """Note what there is before anything changes. Raises CniError 5.

    What an earlier ADD noted stays: that was before any change of ours. What sysctls are set to
    is for `settle` to say; until then whatever they are is of ADD's making.
    """
    earlier = load(path)
    document = {**before, **earlier, "network": network}
    if "sysctl" in before:
        document["sysctl"] = {**before["sysctl"], **sysctls_of(earlier)}
        document["container"] = container_id
        document.setdefault("since", monotonic())
        document["written"] = {
            name: values
            for name, values in written_of(earlier).items()
            if name not in before["sysctl"]
        }
    replace(path, document)


def settle(path: str, written: dict[str, list[str]]) -> None:
    """Note what ADD has set sysctls to; see `written_of`. Raises CniError 5."""
    document = load(path)
    document["written"] = {**written_of(document), **written}
    replace(path, document)


def replace(path: str, document: dict[str, Any]) -> None:
    """Write a backup whole, into a directory that is there. Raises CniError 5."""
    from libcni.jsontext import dumps

    try:
        write_atomic(path, dumps(document).encode())
    except OSError as error:
        raise io_error(error, "write", path) from None


def remove(path: str) -> None:
    """Remove the file. Idempotent. Raises CniError 5."""
    try:
        remove_file(path)
    except NotADirectoryError:
        return
    except OSError as error:
        raise io_error(error, "remove", path) from None


def sweep(directory: str) -> None:
    """Remove what writers left that were killed; others wait for the lock. Raises CniError 5."""
    for name in posix.listdir(directory):
        stem, _, end = name.rpartition(f"{SUFFIX}.")
        if stem and end.endswith(".tmp") and end[:-4].isdecimal():
            remove(f"{directory}/{name}")


def stale(directory: str, network: str, valid: set[tuple[str, str]]) -> list[str]:
    """The files of this network's attachments that are not valid any more.

    Go's files do not say their network and are left alone. A damaged one says nothing that any
    DEL could use: it goes whosever it was, if its name is an attachment's. Raises CniError 5.
    """
    try:
        names = posix.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise io_error(error, "list", directory) from None
    keep = {f"{container_id}_{ifname}{SUFFIX}" for container_id, ifname in valid}
    found = []
    for name in names:
        if name in keep or not _names_attachment(name):
            continue
        path = f"{directory}/{name}"
        try:
            noted = _read(path)
        except OSError:
            # A directory, or a disk that fails: not known to be damaged.
            continue
        if noted is None or noted.get("network") == network:
            found.append(path)
    return found


def _names_attachment(name: str) -> bool:
    """True for <containerID>_<ifname>.json, both of which may have a "_" in them."""
    if not name.endswith(SUFFIX):
        return False
    words = name[: -len(SUFFIX)].split("_")
    return any(
        is_identifier("_".join(words[:count])) and _is_ifname("_".join(words[count:]))
        for count in range(1, len(words))
    )


def _is_ifname(text: str) -> bool:
    try:
        check_ifname(text)
    except CniError:
        return False
    return bool(text)
