# SPDX-License-Identifier: Apache-2.0
"""Plugins that are broken on purpose, each in one way: what the cases are tried on."""
