# SPDX-License-Identifier: Apache-2.0
"""cnitool: attach and detach by hand what a runtime would; a drop-in for Go's tool of the name.

Ordinary modern Python, unlike the plugins: nobody waits for its start.
"""
