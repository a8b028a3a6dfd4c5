# SPDX-License-Identifier: Apache-2.0
"""Who owns what, without reading every reservation: `.owners/` in a network's directory.

A file per owner, named after the owner's content in a reservation ("id\\r\\nifname", or "id"
alone in very old ones) hashed. Its lines: the boot in which the reservation was made, the path
of the namespace it was made for, then an address and its reservation's mtime in ns for each.
Go's plugin walks through these files too and takes none for a reservation: there what compares
equal has no bare line feed.

The index is a hint. What it says of an address counts only if the reservation itself says so,
and what it does not know counts only while the *stamp* holds: after a change under the lock both
directories get one and the same mtime, whose nanoseconds are a hash of its seconds, of the
directory's inode and of the boot. Whoever else makes or removes a reservation (Go's plugin, an
administrator, a copy of the tree, ourselves killed half way) leaves the kernel's time there, or
another inode, and a power loss that may have torn index files changes the boot. Without the
stamp the next operation reads all reservations once and writes the index anew (`scan`).
"""

from __future__ import annotations

import posix
from _sha512 import sha512
from time import time

from libcni.fs import read_fd, read_file, write_all

FOLDER = ".owners"
#: A path so that tests can boot.
BOOT_ID = "/proc/sys/kernel/random/boot_id"

_READ = posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NOFOLLOW | posix.O_NONBLOCK
_WRITE = posix.O_WRONLY | posix.O_CREAT | posix.O_TRUNC | posix.O_CLOEXEC | posix.O_NOFOLLOW
_SECOND = 1_000_000_000


def boot_id() -> str:
    """An identifier of this boot; "-" where there is none to read, which equals no boot."""
    try:
        return read_file(BOOT_ID).decode("ascii", "replace").strip() or "-"
    except OSError:
        return "-"


def file_of(key: bytes) -> str:
    """Name of the index file of an owner."""
    return sha512(key).hexdigest()[:32]


class Entry:
    """What is known of an owner. addresses: IP text → mtime of its reservation, ns."""

    __slots__ = ("addresses", "boot", "netns")

    def __init__(self, boot: str, netns: str, addresses: dict[str, int]) -> None:
        self.boot = boot
        #: "" when not known.
        self.netns = netns
        self.addresses = addresses

    def encode(self) -> bytes:
        """The content of the index file."""
        netns = "" if "\n" in self.netns else self.netns
        lines = [self.boot, netns]
        lines += [f"{address} {mtime}" for address, mtime in self.addresses.items()]
        return ("\n".join(lines) + "\n").encode("utf-8", "replace")


def decode(data: bytes) -> Entry | None:
    """Read an index file; None when it is torn or not one."""
    lines = data.decode("utf-8", "replace").split("\n")
    if len(lines) < 3 or lines[-1]:
        return None
    addresses = {}
    for line in lines[2:-1]:
        address, _, mtime = line.partition(" ")
        if not (mtime.isascii() and mtime.isdigit() and len(mtime) < 20):
            return None
        addresses[address] = int(mtime)
    return Entry(lines[0], lines[1], addresses)


class Index:
    """The index of a network's directory, which the caller has locked.

    fd: the directory. complete: what is not found does not exist. All OSErrors of changes are
    the caller's business, who decides whether they matter.
    """

    __slots__ = ("boot", "changed", "complete", "fd", "known")

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.boot = boot_id()
        #: True when the stamp has to be set again.
        self.changed = False
        #: Everything there is, after a scan; None before.
        self.known: dict[bytes, Entry] | None = None
        self.complete = self._is_stamped()

    def _stamp(self, seconds: int, inode: int) -> int:
        """The mtime in ns that says "complete" at that second, for that directory and boot."""
        digest = sha512(f"{seconds} {inode} {self.boot}".encode()).digest()
        return seconds * _SECOND + int.from_bytes(digest[:8], "big") % _SECOND

    def _is_stamped(self) -> bool:
        try:
            mine = posix.stat(FOLDER, dir_fd=self.fd, follow_symlinks=False)
        except OSError:
            return False
        directory = posix.stat(self.fd)
        mtime = directory.st_mtime_ns
        return mine.st_mtime_ns == mtime == self._stamp(mtime // _SECOND, directory.st_ino)

    def stamp(self) -> None:
        """Declare the index complete, if it was and has changed. Never fails: a hint."""
        if not (self.changed and self.complete):
            return
        try:
            # The second before this one, lest files be dated in the future.
            mtime = self._stamp(int(time()) - 1, posix.stat(self.fd).st_ino)
            posix.utime(FOLDER, ns=(mtime, mtime), dir_fd=self.fd)
            posix.utime(self.fd, ns=(mtime, mtime))
        except OSError:
            return

    def get(self, key: bytes) -> Entry | None:
        """The owner's entry, or None; a damaged one is none, and makes the index incomplete."""
        if self.known is not None:
            return self.known.get(key)
        try:
            fd = posix.open(f"{FOLDER}/{file_of(key)}", _READ, dir_fd=self.fd)
        except FileNotFoundError:
            return None
        except OSError:
            self.complete = False
            return None
        entry = None
        try:
            entry = decode(read_fd(fd, 1 << 20))
        except OSError:
            pass
        finally:
            posix.close(fd)
        if entry is None:
            self.complete = False
        return entry

    def put(self, key: bytes, entry: Entry) -> None:
        """Write the owner's entry. Raises OSError.

        Not atomic, as the stamp is off until the operation ends: the reservation is made before.
        """
        self.changed = True
        name = f"{FOLDER}/{file_of(key)}"
        try:
            fd = posix.open(name, _WRITE, 0o600, dir_fd=self.fd)
        except FileNotFoundError:
            posix.mkdir(FOLDER, 0o700, dir_fd=self.fd)
            fd = posix.open(name, _WRITE, 0o600, dir_fd=self.fd)
        try:
            write_all(fd, entry.encode())
        finally:
            posix.close(fd)
        if self.known is not None:
            self.known[key] = entry

    def remove(self, key: bytes) -> None:
        """Forget an owner. Idempotent. Raises OSError."""
        self.changed = True
        if self.known is not None:
            self.known.pop(key, None)
        try:
            posix.unlink(f"{FOLDER}/{file_of(key)}", dir_fd=self.fd)
        except FileNotFoundError:
            return
