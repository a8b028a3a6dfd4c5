# SPDX-License-Identifier: Apache-2.0
"""A conformance suite for CNI plugins in any language."""

#: Of the suite.
VERSION = "0.1.0"
