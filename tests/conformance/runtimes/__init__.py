# SPDX-License-Identifier: Apache-2.0
"""Runtimes to lead through the scenarios: libcni, containerd, and one with a fault at a time."""
