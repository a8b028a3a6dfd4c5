# SPDX-License-Identifier: Apache-2.0
"""System calls by name, and which of them leave everything as it was."""

from __future__ import annotations

import functools
import os
import re
import subprocess

#: They read, wait, or arrange the process's own affairs. Whatever is not here may have an effect.
_HARMLESS = """
read pread64 readv poll ppoll select pselect6 lseek close close_range fcntl dup dup2 dup3
mmap munmap mprotect mremap brk madvise futex arch_prctl prctl prlimit64 getrlimit
rt_sigaction rt_sigprocmask rt_sigreturn rt_sigtimedwait sigaltstack
stat fstat lstat newfstatat statx statfs fstatfs access faccessat faccessat2
readlink readlinkat getdents64 getcwd chdir fchdir fadvise64 umask uname sysinfo times
clock_gettime clock_getres clock_nanosleep nanosleep gettimeofday getrandom
getpid getppid gettid getuid geteuid getgid getegid getresuid getresgid getpgrp
set_tid_address set_robust_list rseq sched_getaffinity sched_yield membarrier
socket bind connect getsockname getsockopt setsockopt recvmsg recvfrom
pipe pipe2 epoll_create1 epoll_ctl epoll_wait epoll_pwait eventfd2 pidfd_open
wait4 waitid exit exit_group restart_syscall
"""
HARMLESS = frozenset(_HARMLESS.split())
_CREATES = os.O_CREAT | os.O_TRUNC | getattr(os, "O_TMPFILE", 0)


@functools.cache
def names() -> dict[int, str]:
    """Number → name on this architecture, from the C library's headers."""
    headers = subprocess.run(
        ["gcc", "-E", "-dM", "-include", "sys/syscall.h", "-x", "c", "/dev/null"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    found = re.findall(r"^#define __NR_(\w+) (\d+)$", headers, re.MULTILINE)
    assert found, "no system call is named in sys/syscall.h: apt-get install libc6-dev"
    return {int(number): name for name, number in found}


def has_effect(number: int, args: tuple[int, ...]) -> bool:
    """False when the call surely leaves files, network and other processes as they were."""
    name = names().get(number, "")
    if name in ("open", "openat"):
        return bool(args[1 if name == "open" else 2] & _CREATES)
    return name not in HARMLESS
