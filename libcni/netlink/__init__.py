# SPDX-License-Identifier: Apache-2.0
"""rtnetlink and nfnetlink in process: tables, codec, socket, and one module per kernel object.

`codec` packs and unpacks by the generated `tables`; `socket` sends a batch in one system call and
matches the answers; `link`, `addr`, `route`, `neigh`, `fdb` and `vlan` build the messages and read
the answers as small objects.
"""
