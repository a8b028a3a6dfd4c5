# SPDX-License-Identifier: Apache-2.0
"""Running plugins: find on CNI_PATH, execute, delegate."""
