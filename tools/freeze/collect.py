# SPDX-License-Identifier: Apache-2.0
"""Never run: analysed at build time so that what the cold paths import is bundled."""

import jsonschema  # noqa: F401
import netaddr  # noqa: F401
import pyroute2  # noqa: F401
import rich.console
import rich.table  # noqa: F401
