# SPDX-License-Identifier: Apache-2.0
"""The targets: a module each, with its `TARGET`."""
