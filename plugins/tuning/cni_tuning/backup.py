# SPDX-License-Identifier: Apache-2.0
"""What an interface was like before ADD, in a file until DEL has restored it.

    <dataDir>/<containerID>_<ifname>.json     {"mac": …, "promisc": …, "mtu": …, "allmulti": …,
                                               "txQLen": …, "sysctl": {…}, "network": …,
                                               "container": …, "written": {…}, "since": …}

Name and keys are Go's, which passes over those from "sysctl" on: either side's DEL can use the
other's. written: by sysctl, all values that ADD has set, the last one last. since: seconds of
the monotonic clock at the first ADD; which of a container's attachments was first.
"""

from __future__ import annotations

import posix
from time import monotonic

from cni_tuning.config import path_of as path_in_net
from libcni.attachment import Attachment
from libcni.fs import ensure_directory, io_error, read_file, remove_file, write_atomic
from libcni.skel.env import check_ifname, is_identifier
from libcni.types.errors import CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_SUFFIX = ".json"


def path_of(directory: str, attachment: Attachment) -> str:
    """The file of an attachment."""
    return f"{directory}/{attachment.container_id}_{attachment.ifname}{_SUFFIX}"


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
    """By sysctl, the values that ADD has set, the last one last; of an older backup none."""
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


def save(
    path: str,
    before: dict[str, Any],
    network: str,
    container_id: str = "",
    sysctls: dict[str, str] | None = None,
) -> None:
    """Note what there is before anything changes. Raises CniError 5.

    What an earlier ADD noted stays: that was before any change of ours. sysctls: what they are
    going to be.
    """
    earlier = load(path)
    document = {**before, **earlier, "network": network}
    if sysctls:
        document["sysctl"] = {**before.get("sysctl", {}), **sysctls_of(earlier)}
        document["container"] = container_id
        document.setdefault("since", monotonic())
        written = document["written"] = written_of(earlier)
        for name, value in sysctls.items():
            others = [other for other in written.get(name, ()) if other != value]
            written[name] = [*others, value]
    replace(path, document)


def replace(path: str, document: dict[str, Any]) -> None:
    """Write a backup whole. Raises CniError 5."""
    from libcni.jsontext import dumps

    directory = path.rpartition("/")[0]
    try:
        ensure_directory(directory)
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
    keep = {f"{container_id}_{ifname}{_SUFFIX}" for container_id, ifname in valid}
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
    if not name.endswith(_SUFFIX):
        return False
    words = name[: -len(_SUFFIX)].split("_")
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
