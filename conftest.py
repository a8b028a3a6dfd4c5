# SPDX-License-Identifier: Apache-2.0
"""Make the tree, each folder under plugins/ and tests/conformance an import root."""

import pathlib
import sys

_ROOT = pathlib.Path(__file__).resolve().parent
for _root in [_ROOT, *sorted((_ROOT / "plugins").iterdir()), _ROOT / "tests/conformance"]:
    if str(_root) not in sys.path:
        sys.path.insert(0, str(_root))
