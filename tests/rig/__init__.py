# SPDX-License-Identifier: Apache-2.0
"""The test rig: a host of one's own, containers in it, plugins run as a runtime runs them.

Nothing that a test does reaches the machine's own network namespace, /run or /var/lib/cni.
"""
