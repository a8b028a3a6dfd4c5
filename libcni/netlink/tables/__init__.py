# SPDX-License-Identifier: Apache-2.0
"""Generated: what each netlink message and attribute looks like. See `libcni.netlink.codec`."""
