# SPDX-License-Identifier: Apache-2.0
"""Who we are: the name and version that every executable reports."""

from __future__ import annotations

NAME = "adder"
VERSION = "0.1.0"
