# SPDX-License-Identifier: Apache-2.0
"""Run every generator: tools/generate_*.py, in the order of their names."""

from __future__ import annotations

import pathlib
import subprocess
import sys


def main() -> int:
    """0, or the exit status of the first generator that fails."""
    here = pathlib.Path(__file__).resolve().parent
    for path in sorted(here.glob("generate_*.py")):
        status = subprocess.run(
            [sys.executable, "-m", f"tools.{path.stem}"], cwd=here.parent
        ).returncode
        if status:
            return status
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
