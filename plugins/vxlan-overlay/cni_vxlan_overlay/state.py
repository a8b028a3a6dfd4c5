# SPDX-License-Identifier: Apache-2.0
"""What was handed to the delegate at ADD, kept until its DEL has succeeded.

Configuration and subnet file may be others by then. One file for each container *and*
interface, `<dataDir>/<container>:<interface>`; the flannel plugin's are named by the container
alone. It is not synced to disk: with the host gone, what it describes is gone too, but for
reservations, which the configuration finds as well.
"""

from __future__ import annotations

import posix

from libcni.fs import ensure_directory, io_error, read_file, remove_file, write_all
from libcni.types.errors import CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from libcni.attachment import Attachment


#: Ends the name of a file that is being written: by one ADD at a time, as runtimes call one
#: verb at a time for an attachment; and no interface's name has a colon.
_UNFINISHED = ":tmp"


def path_of(directory: str, attachment: Attachment) -> str:
    """The file of an attachment; a colon is in neither of the two parts."""
    return f"{directory.rstrip('/')}/{attachment.container_id}:{attachment.ifname}"


def save(path: str, document: dict[str, Any]) -> None:
    """Write the delegate's configuration, whole or not at all. Raises CniError 5."""
    from libcni.jsontext import dumps

    data = dumps(document).encode("utf-8", "replace")
    temporary = path + _UNFINISHED
    flags = posix.O_WRONLY | posix.O_CREAT | posix.O_TRUNC | posix.O_CLOEXEC | posix.O_NOFOLLOW
    try:
        try:
            fd = posix.open(temporary, flags, 0o600)
        except FileNotFoundError:
            ensure_directory(path.rpartition("/")[0], 0o700)
            fd = posix.open(temporary, flags, 0o600)
        try:
            write_all(fd, data)
        finally:
            posix.close(fd)
        posix.rename(temporary, path)
    except OSError as error:
        try:
            remove_file(temporary)
        except OSError:
            pass  # the first error is the one that says what is wrong
        raise io_error(error, "write", path) from None


def load(path: str) -> dict[str, Any] | None:
    """The document that `save` (or the flannel plugin) wrote; None if absent or unreadable.

    A file that cannot be understood must not keep DEL from cleaning up by other means.
    """
    from libcni.jsontext import loads

    try:
        document = loads(read_file(path), path)
    except (OSError, CniError):
        return None
    return document if isinstance(document, dict) else None


def remove(path: str) -> None:
    """Remove the file, and what a killed ADD had of it. Idempotent. Raises CniError 5."""
    try:
        remove_file(path)
        remove_file(path + _UNFINISHED)
    except OSError as error:
        raise io_error(error, "remove", path) from None


def kept(directory: str, network: str) -> list[tuple[str, str, dict[str, Any]]]:
    """(container ID, interface, document) of each attachment to the network with a file here.

    Of the flannel plugin's files the interface is "". One that was being written and is whole
    counts as well. Raises CniError 5.
    """
    try:
        names = posix.listdir(directory)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise io_error(error, "list", directory) from None
    found = []
    for name in sorted(names):
        container, _, ifname = name.removesuffix(_UNFINISHED).partition(":")
        document = load(f"{directory.rstrip('/')}/{name}")
        if document is not None and document.get("name") == network:
            found.append((container, ifname, document))
    return found
