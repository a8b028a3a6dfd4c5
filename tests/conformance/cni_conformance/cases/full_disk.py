# SPDX-License-Identifier: Apache-2.0
"""File systems that take nothing any more."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Callable, Iterator

from cni_conformance import namespaces
from cni_conformance.bench import Bench
from cni_conformance.case import case
from cni_conformance.leftovers import Trial

#: What plugins keep their state in.
_DIRECTORIES = ("/var/lib/cni", "/run")
#: linux/mount.h
_MS_RDONLY = 1
_MS_REMOUNT = 32
_SECTION = "SPEC 1.1.0, section 2, ADD and DEL; section 5, Error"


@contextlib.contextmanager
def _full() -> Iterator[None]:
    """No byte and no inode is left."""
    fillers = []
    try:
        for directory in _DIRECTORIES:
            used = os.statvfs(directory)
            pages = used.f_blocks - used.f_bfree + 1
            inodes = used.f_files - used.f_ffree + 1
            size = f"size={pages * used.f_bsize},nr_inodes={inodes}"
            namespaces.mount("tmpfs", directory, "tmpfs", _MS_REMOUNT, size)
            fillers.append(f"{directory}/conformance-filler")
            _fill(fillers[-1])
        yield
    finally:
        for directory in _DIRECTORIES:
            namespaces.mount("tmpfs", directory, "tmpfs", _MS_REMOUNT, "size=64m,nr_inodes=10000")
        for filler in fillers:
            os.unlink(filler)


def _fill(path: str) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        while True:
            os.write(descriptor, bytes(4096))
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _read_only() -> Iterator[None]:
    """Nothing can be written."""
    try:
        for directory in _DIRECTORIES:
            namespaces.mount("tmpfs", directory, "tmpfs", _MS_REMOUNT | _MS_RDONLY)
        yield
    finally:
        for directory in _DIRECTORIES:
            namespaces.mount("tmpfs", directory, "tmpfs", _MS_REMOUNT)


Circumstance = Callable[[], contextlib.AbstractContextManager[None]]


def _add(bench: Bench, circumstance: Circumstance) -> None:
    bench.warm_up()
    trial = Trial(bench)
    pod = trial.pod
    with circumstance():
        outcome = pod.add()
        if outcome.succeeded:
            outcome.expect_result(bench.version)
        else:
            outcome.expect_error()
    _expect_clean(trial)


def _delete(bench: Bench, circumstance: Circumstance) -> None:
    bench.warm_up()
    trial = Trial(bench)
    pod = trial.pod
    pod.attach_for_result()
    with circumstance():
        outcome = pod.delete()
        if not outcome.succeeded:
            outcome.expect_error()
    _expect_clean(trial)


def _expect_clean(trial: Trial) -> None:
    """When there is room again, DEL leaves nothing."""
    trial.pod.delete().expect_silence()
    trial.expect_clean()


@case(
    "full-disk-add",
    "On a full file system ADD succeeds or fails with an error, and DEL leaves nothing",
    section=_SECTION,
    newest_only=True,
)
def full_disk_add(bench: Bench) -> None:
    """No byte and no inode is left in /var/lib/cni and /run during ADD; there is room again when
    DEL is called."""
    _add(bench, _full)


@case(
    "full-disk-del",
    "On a full file system DEL succeeds or fails with an error, and its repetition leaves nothing",
    section=_SECTION,
    newest_only=True,
)
def full_disk_del(bench: Bench) -> None:
    """As `full-disk-add`, during the first of two DELs."""
    _delete(bench, _full)


@case(
    "full-disk-del-succeeds",
    "DEL succeeds on a full file system, where removing needs no room",
    section="SPEC 1.1.0, section 2, DEL: without error to the fullest extent possible",
    level="recommended",
    newest_only=True,
)
def full_disk_del_succeeds(bench: Bench) -> None:
    """A node whose disk is full gets room by containers that end."""
    bench.warm_up()
    trial = Trial(bench)
    pod = trial.pod
    pod.attach_for_result()
    with _full():
        pod.delete().expect_silence()
    trial.expect_clean()


@case(
    "read-only-add",
    "On a read-only file system ADD succeeds or fails with an error, and DEL leaves nothing",
    section=_SECTION,
    newest_only=True,
)
def read_only_add(bench: Bench) -> None:
    """/var/lib/cni and /run cannot be written to during ADD, and can when DEL is called."""
    _add(bench, _read_only)


@case(
    "read-only-del",
    "On a read-only file system DEL succeeds or fails with an error; another leaves nothing",
    section=_SECTION,
    newest_only=True,
)
def read_only_del(bench: Bench) -> None:
    """As `read-only-add`, during the first of two DELs."""
    _delete(bench, _read_only)
