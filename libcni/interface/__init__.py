# SPDX-License-Identifier: Apache-2.0
"""What plugins that make an interface have in common: its addresses, its check, its removal."""
