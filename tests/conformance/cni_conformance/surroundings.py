# SPDX-License-Identifier: Apache-2.0
"""What was tested, by what, on what and when: the head of every report that goes to a file."""

from __future__ import annotations

import dataclasses
import os
import sys
import time
from collections.abc import Iterable

from cni_conformance import VERSION


@dataclasses.dataclass(frozen=True)
class Examined:
    """A plugin, or a runtime.

    name: as verdicts call it. path: of its executable; of a runtime, what --runtime names.
    versions: those that a plugin claims, of those that the suite knows. obstacle: why it could
    not be tested here, "" when it was.
    """

    name: str
    path: str
    versions: tuple[str, ...] = ()
    obstacle: str = ""


@dataclasses.dataclass(frozen=True)
class Surroundings:
    """suite: its version. began: in UTC, as 2026-01-31T12:00:00Z. kernel: its release."""

    suite: str
    began: str
    kernel: str
    python: str
    plugins: tuple[Examined, ...] = ()

    @property
    def obstacles(self) -> dict[str, str]:
        """By name, why plugins could not be tested here."""
        return {each.name: each.obstacle for each in self.plugins if each.obstacle}

    def of(self, plugin: str) -> Examined:
        """What is known of the one that verdicts call so."""
        known = {each.name: each for each in self.plugins}
        return known.get(plugin) or Examined(plugin, plugin)


def take(plugins: Iterable[Examined] = ()) -> Surroundings:
    """Those of a run that begins now. The host's name is left out: reports are passed on."""
    return Surroundings(
        suite=VERSION,
        began=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        kernel=os.uname().release,
        python=".".join(map(str, sys.version_info[:3])),
        plugins=tuple(plugins),
    )
