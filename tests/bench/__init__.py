# SPDX-License-Identifier: Apache-2.0
"""Measurements side by side with the Go plugins: `make bench`, or `python -m tests.bench`."""
