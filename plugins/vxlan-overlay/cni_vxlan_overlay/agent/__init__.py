# SPDX-License-Identifier: Apache-2.0
"""vxlan-overlayd, the node's agent, and install-cni: a frozen program of their own."""

#: The names of the program; it looks at the one that it is called by.
PROGRAMS = ("vxlan-overlayd", "install-cni")
