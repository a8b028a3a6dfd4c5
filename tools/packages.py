# SPDX-License-Identifier: Apache-2.0
"""Install Debian packages that are missing, and none of the services that they bring.

    python3 tools/packages.py NAME...

Debian starts and enables a service as its package is installed. A container runtime or a firewall
is wanted here for its programs only, so neither happens; what was installed before stays as it is.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence

#: Asked by invoke-rc.d before it starts anything; 101 is "not allowed" (invoke-rc.d(8)).
POLICY = pathlib.Path("/usr/sbin/policy-rc.d")
_REFUSE_ALL = "#!/bin/sh\n# While tools/packages.py installs; removed afterwards.\nexit 101\n"
_UNIT = re.compile(r"(?:/usr)?/lib/systemd/system/([^/@]+\.(?:service|socket|timer|path))")


def installed() -> set[str]:
    """The packages that are installed, where there are several architectures as "name:amd64"."""
    done = subprocess.run(
        ["dpkg-query", "-W", "-f", "${binary:Package} ${Status}\n"],
        check=True,
        capture_output=True,
        text=True,
    )
    lines = (line.partition(" ") for line in done.stdout.splitlines())
    return {name for name, _, status in lines if status == "install ok installed"}


@contextlib.contextmanager
def services_held(policy: pathlib.Path = POLICY) -> Iterator[None]:
    """Nothing is started meanwhile. A policy of the host's own decides by itself, and stays."""
    with contextlib.suppress(FileNotFoundError):
        if policy.read_text() == _REFUSE_ALL:
            policy.unlink()  # of a call that was killed
    try:
        fd = os.open(policy, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o755)
    except FileExistsError:
        yield
        return
    try:
        with open(fd, "w") as file:
            file.write(_REFUSE_ALL)
        yield
    finally:
        policy.unlink(missing_ok=True)


def units_of(packages: Iterable[str]) -> list[str]:
    """The systemd units that these packages brought; not templates, which nothing enables."""
    names = sorted(packages)
    if not names:
        return []
    done = subprocess.run(["dpkg", "-L", *names], check=True, capture_output=True, text=True)
    return sorted(set(_UNIT.findall(done.stdout)))


def install(names: Sequence[str], policy: pathlib.Path = POLICY) -> list[str]:
    """Install those that are missing, with what they need; the names that were. Idempotent.

    Services of what is new neither run nor are enabled afterwards, also when apt-get fails half
    way. Raises CalledProcessError with apt-get's status.
    """
    before = installed()
    present = {package.partition(":")[0] for package in before}
    missing = [name for name in names if name not in present]
    if not missing:
        return []
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    subprocess.run(["apt-get", "update", "-qq"], check=True)
    command = ["apt-get", "install", "-qq", "-y", "--no-install-recommends", *missing]
    try:
        with services_held(policy):
            subprocess.run(command, check=True, env=quiet)
    finally:
        units = units_of(installed() - before)
        # It needs no systemd that runs, and upgrades leave disabled what is.
        if units and shutil.which("systemctl"):
            subprocess.run(["systemctl", "disable", "--quiet", *units], check=True)
    return missing


def main(names: Sequence[str]) -> int:
    """Exit status: 0, or that of the command that failed, which has said why."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        install(names)
    except subprocess.CalledProcessError as error:
        print(f"{error.cmd[0]} failed with status {error.returncode}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
