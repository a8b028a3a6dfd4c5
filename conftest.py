# SPDX-License-Identifier: Apache-2.0
"""Make the tree and each folder under plugins/ an import root, as the Makefile does."""

import pathlib
import sys

_ROOT = pathlib.Path(__file__).resolve().parent
for _root in [_ROOT, *sorted((_ROOT / "plugins").iterdir())]:
    if str(_root) not in sys.path:
        sys.path.insert(0, str(_root))
