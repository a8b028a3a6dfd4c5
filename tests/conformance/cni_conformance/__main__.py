# SPDX-License-Identifier: Apache-2.0
"""`python -m cni_conformance`: the same as the command cni-conformance."""

from __future__ import annotations

import sys

from cni_conformance.cli import main

if __name__ == "__main__":
    sys.exit(main())
