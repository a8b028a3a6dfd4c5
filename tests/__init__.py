# SPDX-License-Identifier: Apache-2.0
"""All tests. A package, so that no installed package called `tests` can take its place."""
