# SPDX-License-Identifier: Apache-2.0
"""Bad input and trouble: the right code, a message naming the culprit, nothing changed."""
