# SPDX-License-Identifier: Apache-2.0
"""The plugin kit: one entry for every plugin, and the only place that touches the process.

`run` reads environment and stdin, validates both, calls the verb, and writes the one result.
These modules are executed for every pod: import nothing that a normal ADD can do without.
"""
