# SPDX-License-Identifier: Apache-2.0
"""Reservations as files, in the form of Go's host-local, so that either can follow the other.

    <dataDir>/<network>/           0755
        10.1.2.3                   0600: "<containerID>\\r\\n<ifname>"; its existence reserves
        last_reserved_ip.0         the address last given out of range set 0; a hint
        lock                       flock(2), exclusive for each operation
        .owners/                   ours: see `index`

A crash (SIGKILL at any instruction, or the machine's) at each step:

1. The content is written to files without a name (O_TMPFILE), one for each address, and synced
   before the lock is taken, so parallel ADDs share the journal's commits. A crash leaves
   nothing: the files have no names. Not one file with several names: whoever overwrites one
   reservation would overwrite the others.
2. link(2) gives it the name of the address: the reservation is complete or absent, and EEXIST
   is the answer "taken". A crash after it leaves a reservation whose owner DEL finds, as the
   changed mtime makes the next operation scan. The directory is not synced: should the machine
   lose power the reservation may be absent, and its container is gone as well.
3. last_reserved_ip is overwritten in place; a torn or empty one is no address or another
   address, and costs the round robin one turn.
4. The index entry is written; torn or absent, it is made anew by the scan, as the stamp has
   been off since step 2.
5. The stamp is set. A crash before it costs a scan, nothing else.

DEL is 2, 4, 5 with unlink(2): a crash between two addresses of an owner leaves the others to
the repeated DEL.
"""

from __future__ import annotations

import posix
from errno import EINVAL, EISDIR, ELOOP, ENOENT, ENOTSUP, ENXIO, EPERM, EXDEV

from cni_host_local.index import Entry, Index
from libcni.fs import Lock, ensure_directory, io_error, read_fd, write_all
from libcni.inet import pton

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import TracebackType

    #: Content of a reservation without surrounding white space, and its stat.
    Reservation = tuple[bytes, posix.stat_result]

_READ = posix.O_RDONLY | posix.O_CLOEXEC | posix.O_NOFOLLOW | posix.O_NONBLOCK
_DIRECTORY = posix.O_RDONLY | posix.O_CLOEXEC | posix.O_DIRECTORY
_CREATE = posix.O_WRONLY | posix.O_CREAT | posix.O_CLOEXEC | posix.O_NOFOLLOW
#: Where O_TMPFILE does not exist the content gets this name first; under the lock, so one does.
_TEMPORARY = ".owners/.new"
#: Bytes; an owner is an identifier and an interface name.
_MAX_CONTENT = 4096


def owner_key(container_id: str, ifname: str) -> bytes:
    """The content of an owner's reservations; the reference's words separator is CRLF."""
    return f"{container_id}\r\n{ifname}".encode()


def legacy_key(container_id: str) -> bytes:
    """The content that very old versions of the reference wrote."""
    return container_id.encode()


def describe(key: bytes) -> str:
    """ "container c1 interface eth0" for messages."""
    container, _, ifname = key.decode("utf-8", "replace").partition("\r\n")
    return f"container {container} interface {ifname}" if ifname else f"container {container}"


class Store:
    """A network's directory. `with store:` holds its lock; `close` when done without.

    Methods that change raise CniError 5 naming the path; all but `prepare` want the lock.
    """

    __slots__ = ("_content", "_lock", "_mtimes", "_unnamed", "directory", "fd", "index")

    #: Valid while locked.
    index: Index

    def __init__(self, directory: str, fd: int) -> None:
        self.directory = directory
        self.fd = fd
        self._lock: Lock | None = None
        self._content = b""
        #: Descriptors of the files without a name that are left.
        self._unnamed: list[int] = []
        #: By address reserved, ns.
        self._mtimes: dict[str, int] = {}

    @classmethod
    def open(cls, directory: str) -> Store | None:
        """The store in `directory`, or None when nothing is there. Raises CniError 5."""
        try:
            return cls(directory, posix.open(directory, _DIRECTORY))
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            raise io_error(error, "open", directory) from None

    @classmethod
    def create(cls, directory: str) -> Store:
        """The store in `directory`, made when absent. Raises CniError 5."""
        try:
            try:
                return cls(directory, posix.open(directory, _DIRECTORY))
            except FileNotFoundError:
                ensure_directory(directory)
                return cls(directory, posix.open(directory, _DIRECTORY))
        except OSError as error:
            raise io_error(error, "make", directory) from None

    def __enter__(self) -> Store:
        lock = Lock(f"{self.directory}/lock")
        try:
            lock.__enter__()
            self._lock = lock
            self.index = Index(self.fd)
            if not self.index.complete:
                from cni_host_local.scan import rebuild

                rebuild(self)
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.index.stamp()
        self.close()

    def close(self) -> None:
        """Release the lock and close everything. Idempotent."""
        lock, self._lock = self._lock, None
        if lock is not None:
            lock.__exit__()
        self._drop_unnamed()
        fd, self.fd = self.fd, -1
        if fd >= 0:
            posix.close(fd)

    def failure(self, error: OSError, doing: str, name: str) -> Exception:
        """A CniError 5 about a file in the directory."""
        return io_error(error, doing, f"{self.directory}/{name}")

    # -- making reservations -------------------------------------------------------------------

    def prepare(self, key: bytes, count: int) -> None:
        """Write and sync the content of that many reservations to come. Needs no lock."""
        self._content = key
        flags = posix.O_TMPFILE | posix.O_WRONLY | posix.O_CLOEXEC
        try:
            for _ in range(count):
                try:
                    fd = posix.open(".", flags, 0o600, dir_fd=self.fd)
                except OSError as error:
                    if _is_refusal(error):
                        return
                    raise
                self._unnamed.append(fd)
                write_all(fd, key)
            for fd in self._unnamed[1:]:
                # Under way now, they are part of what the first one's commit waits for, and
                # syncing them finds little left to do.
                posix.posix_fadvise(fd, 0, 0, posix.POSIX_FADV_DONTNEED)
            for fd in self._unnamed:
                posix.fsync(fd)
        except OSError as error:
            raise io_error(error, "write a reservation in", self.directory) from None

    def _drop_unnamed(self) -> None:
        while self._unnamed:
            posix.close(self._unnamed.pop())

    def reserve(self, address: str) -> bool:
        """Reserve an address for the owner of `prepare`; False when it is taken."""
        self.index.changed = True
        try:
            if self._unnamed:
                fd = self._unnamed[0]
                try:
                    # Only with a descriptor for a directory Python asks the kernel to follow.
                    posix.link(
                        f"/proc/self/fd/{fd}", address, src_dir_fd=self.fd, dst_dir_fd=self.fd
                    )
                except FileExistsError:
                    return False
                except OSError as error:
                    if not _is_refusal(error):
                        raise
                    self._drop_unnamed()
                else:
                    self._note(fd, address)
                    posix.close(self._unnamed.pop(0))
                    return True
            return self._reserve_by_name(address)
        except OSError as error:
            raise self.failure(error, "reserve", address) from None

    def _reserve_by_name(self, address: str) -> bool:
        """`reserve` where /proc is not mounted or files without a name do not exist."""
        try:
            posix.mkdir(".owners", 0o700, dir_fd=self.fd)
        except FileExistsError:
            pass
        fd = posix.open(_TEMPORARY, _CREATE | posix.O_TRUNC, 0o600, dir_fd=self.fd)
        try:
            write_all(fd, self._content)
            posix.fsync(fd)
            posix.link(_TEMPORARY, address, src_dir_fd=self.fd, dst_dir_fd=self.fd)
            self._note(fd, address)
        except FileExistsError:
            return False
        finally:
            posix.close(fd)
            posix.unlink(_TEMPORARY, dir_fd=self.fd)
        return True

    def _note(self, fd: int, address: str) -> None:
        self._mtimes[address] = posix.stat(fd).st_mtime_ns

    def record(self, key: bytes, netns: str, addresses: list[str]) -> None:
        """Write the index entry of what was reserved, beside what the owner already had."""
        held = self.entry(key)
        known = {address: self._mtimes[address] for address in addresses}
        if held is not None:
            known = {**held.addresses, **known}
        try:
            self.index.put(key, Entry(self.index.boot, netns, known))
        except OSError as error:
            self.index.complete = False
            raise self.failure(error, "write", ".owners") from None

    # -- reading and removing them -------------------------------------------------------------

    def read(self, address: str) -> Reservation | None:
        """A reservation; None when there is none, or something else has its name."""
        try:
            fd = posix.open(address, _READ, dir_fd=self.fd)
        except OSError as error:
            if error.errno in (ENOENT, ELOOP, ENXIO):
                return None
            raise self.failure(error, "read", address) from None
        try:
            return read_fd(fd, _MAX_CONTENT).strip(), posix.stat(fd)
        except IsADirectoryError:
            return None
        except OSError as error:
            raise self.failure(error, "read", address) from None
        finally:
            posix.close(fd)

    def entry(self, key: bytes) -> Entry | None:
        """The owner's index entry; a damaged one is made anew."""
        entry = self.index.get(key)
        if entry is None and not self.index.complete and self.index.known is None:
            from cni_host_local.scan import rebuild

            rebuild(self)
            entry = self.index.get(key)
        return entry

    def owned(self, key: bytes) -> list[str]:
        """The addresses whose reservations name this owner."""
        entry = self.entry(key)
        if entry is None:
            return []
        return [address for address in entry.addresses if self._names(address, key)]

    def _names(self, address: str, key: bytes) -> bool:
        reservation = self.read(address)
        return reservation is not None and reservation[0] == key

    def release(self, key: bytes) -> list[str]:
        """Remove all reservations of an owner; the addresses that it had. Idempotent."""
        addresses = self.owned(key)
        for address in addresses:
            self.free(address)
        if addresses or self.entry(key) is not None:
            self._forget(key)
        return addresses

    def release_some(self, key: bytes, addresses: list[str]) -> None:
        """Remove those reservations of `addresses` that name this owner. Idempotent."""
        for address in addresses:
            if self._names(address, key):
                self.free(address)
        entry = self.entry(key)
        if entry is None:
            return
        left = {a: m for a, m in entry.addresses.items() if a not in addresses}
        if not left:
            self._forget(key)
        elif len(left) < len(entry.addresses):
            try:
                self.index.put(key, Entry(entry.boot, entry.netns, left))
            except OSError:
                self.index.complete = False

    def free(self, address: str) -> None:
        """Remove one reservation, whoever's. Idempotent."""
        self.index.changed = True
        try:
            posix.unlink(address, dir_fd=self.fd)
        except FileNotFoundError:
            return
        except OSError as error:
            raise self.failure(error, "release", address) from None

    def _forget(self, key: bytes) -> None:
        """Remove an index entry; one that stays is harmless, as reservations are verified."""
        try:
            self.index.remove(key)
        except OSError:
            self.index.complete = False

    def names(self) -> set[str]:
        """Every name in the directory, reservations among them."""
        try:
            return set(posix.listdir(self.fd))
        except OSError as error:
            raise io_error(error, "list", self.directory) from None

    # -- round robin ---------------------------------------------------------------------------

    def last_reserved(self, index: int) -> bytes | None:
        """The address last given out of a range set, packed; None when not known."""
        reservation = self.read(f"last_reserved_ip.{index}")
        if reservation is None:
            return None
        try:
            return pton(reservation[0].decode("ascii", "replace"))
        except ValueError:
            return None

    def set_last_reserved(self, index: int, address: str) -> None:
        """Remember the address last given out of a range set."""
        name = f"last_reserved_ip.{index}"
        try:
            fd = posix.open(name, _CREATE, 0o600, dir_fd=self.fd)
            try:
                # In place: overwriting needs no new block, so a full file system does not stop it.
                data = address.encode()
                write_all(fd, data)
                posix.ftruncate(fd, len(data))
            finally:
                posix.close(fd)
        except OSError as error:
            raise self.failure(error, "write", name) from None


def _is_refusal(error: OSError) -> bool:
    """True when the file system does not do what was asked, rather than failing at it."""
    return error.errno in (EINVAL, EISDIR, ENOENT, ENOTSUP, EPERM, EXDEV)
