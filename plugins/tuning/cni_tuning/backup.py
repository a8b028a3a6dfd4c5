# SPDX-License-Identifier: Apache-2.0
"""What an interface was like before ADD, in a file until DEL has restored it.

    <dataDir>/<containerID>_<ifname>.json     {"mac": …, "promisc": …, "mtu": …, "allmulti": …,
                                               "txQLen": …, "sysctl": {…}, "network": …}

Name and keys are Go's, which passes over the last two: either side's DEL can use the other's.
"""

from __future__ import annotations

import posix

from libcni.attachment import Attachment
from libcni.fs import ensure_directory, io_error, read_file, remove_file, write_atomic
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
    from libcni.jsontext import loads

    try:
        document = loads(read_file(path), path)
    except (OSError, CniError):
        return {}
    return document if isinstance(document, dict) else {}


def save(path: str, before: dict[str, Any], network: str) -> None:
    """Note what there is before anything changes. Raises CniError 5.

    What an earlier ADD noted stays: that was before any change of ours.
    """
    from libcni.jsontext import dumps

    earlier = load(path)
    sysctls = {**before.pop("sysctl", {}), **earlier.pop("sysctl", {})}
    document = {**before, **earlier, "network": network}
    if sysctls:
        document["sysctl"] = sysctls
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

    Go's files do not say their network and are left alone. Raises CniError 5.
    """
    try:
        names = posix.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise io_error(error, "list", directory) from None
    keep = {f"{container_id}_{ifname}{_SUFFIX}" for container_id, ifname in valid}
    return [
        f"{directory}/{name}"
        for name in names
        if name.endswith(_SUFFIX)
        and name not in keep
        and load(f"{directory}/{name}").get("network") == network
    ]
