# SPDX-License-Identifier: Apache-2.0
"""Who has which address, where `exclusive` is set: a file each, so that nobody else gets it.

    <dataDir>/<network>/10.1.2.3    "<containerID>\\r\\n<ifname>\\r\\n<boot ID>"
    <dataDir>/<network>/lock        flock(2), for each operation

A file is complete or absent. What was written before the machine last started is nobody's:
namespaces do not outlive a boot.
"""

from __future__ import annotations

import posix

from libcni.attempts import Attempts
from libcni.fs import (
    Lock,
    ensure_directory,
    io_error,
    read_file,
    remove_file,
    usable_path,
    write_atomic,
)
from libcni.types.errors import CONFLICT, CniError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from libcni.attachment import Attachment
    from libcni.skel.request import Request

DEFAULT_DATA_DIR = "/var/lib/cni/static"
_LOCK = "lock"


def directory_of(request: Request) -> str:
    """Of a network's files, from a configuration that may be in disorder.

    Raises CniError 7 for a `dataDir` that can be no path.
    """
    ipam = request.config.get("ipam")
    data_dir = ipam.get("dataDir") if isinstance(ipam, dict) else None
    if not isinstance(data_dir, str) or not data_dir:
        data_dir = DEFAULT_DATA_DIR
    return f"{usable_path(data_dir, 'ipam.dataDir').rstrip('/')}/{request.network}"


def claim(request: Request, addresses: list[str]) -> None:
    """Note the attachment as holder of all of the addresses, or of none. Idempotent.

    On the undo stack goes what was noted. Raises CniError 101 naming address and holder when
    another has one, 5, or 11 when the lock is not to be had.
    """
    directory = directory_of(request)
    try:
        ensure_directory(directory)
    except OSError as error:
        raise io_error(error, "make", directory) from error
    mine = owner_of(request.attachment)
    with Lock(f"{directory}/{_LOCK}"):
        missing = []
        for address in addresses:
            holder = _holder(f"{directory}/{address}")
            if holder and holder != mine:
                raise CniError(
                    CONFLICT,
                    f"address {address} of network {request.network} is held by "
                    f"{describe(holder)}",
                    "detach that one first; without ipam.exclusive both would have it",
                )
            if not holder:
                missing.append(address)
        for address in missing:
            path = f"{directory}/{address}"
            request.undo.push(_give_back, path, mine)
            try:
                write_atomic(path, f"{mine}\r\n{_boot()}".encode())
            except OSError as error:
                raise io_error(error, "write", path) from error


def holder_of(request: Request, address: str) -> str:
    """The owner (see `owner_of`) that an address is noted for; "" for nobody."""
    return _holder(f"{directory_of(request)}/{address}")


def release(directory: str, is_stale: Callable[[str, float], bool]) -> None:
    """Forget those that are stale. Idempotent; nothing has to be there.

    is_stale: told the owner ("" of a damaged file) and when the file was written, in seconds
    since the epoch. Tries everything, and raises the first CniError 5; 11 as `claim`.
    """
    try:
        names = posix.listdir(directory)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        raise io_error(error, "list", directory) from error
    attempts = Attempts()
    with Lock(f"{directory}/{_LOCK}"):
        for name in names:
            if name != _LOCK:
                attempts.attempt(_release, f"{directory}/{name}", is_stale)
    attempts.report()


def _release(path: str, is_stale: Callable[[str, float], bool]) -> None:
    try:
        if is_stale(_content(path), posix.stat(path).st_mtime):
            remove_file(path)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise io_error(error, "remove", path) from error


def owner_of(attachment: Attachment) -> str:
    """As the files have it; none of its parts has a line break."""
    return f"{attachment.container_id}\r\n{attachment.ifname}"


def describe(owner: str) -> str:
    """For messages."""
    container, _, ifname = owner.partition("\r\n")
    return f"container {container} interface {ifname}"


def _holder(path: str) -> str:
    """The owner that a file of this boot names; "" for none."""
    try:
        return _content(path, _boot())
    except OSError:
        return ""


def _content(path: str, boot: str = "") -> str:
    """The owner that a file names; "" when it is of another boot than `boot`, or damaged."""
    container, _, rest = read_file(path).decode("utf-8", "replace").partition("\r\n")
    ifname, _, written = rest.partition("\r\n")
    if not ifname or (boot and "-" not in (boot, written) and boot != written):
        return ""
    return f"{container}\r\n{ifname}"


def _boot() -> str:
    try:
        return read_file("/proc/sys/kernel/random/boot_id").decode().strip()
    except OSError:
        return "-"


def _give_back(path: str, owner: str) -> None:
    try:
        if _content(path) == owner:
            remove_file(path)
    except FileNotFoundError:
        pass
