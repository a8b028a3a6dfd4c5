# SPDX-License-Identifier: Apache-2.0
"""How much of the suite's longest cases its tests run."""

from __future__ import annotations

import os

from tests.faults.moments import EVERY_CALL

# Each system call of each plugin takes an hour; read when the cases are discovered.
os.environ.setdefault("CNI_CONFORMANCE_STRIDE", "1" if EVERY_CALL else "40")
