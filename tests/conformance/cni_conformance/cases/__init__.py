# SPDX-License-Identifier: Apache-2.0
"""Cases that data cannot describe; every module here is found by looking."""
