# SPDX-License-Identifier: Apache-2.0
"""The runtime's side: recording plugins, and scenarios that a runtime is led through."""
