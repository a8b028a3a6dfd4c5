# SPDX-License-Identifier: Apache-2.0
"""Fuzzing of everything that a plugin or a runtime reads and somebody else wrote.

Whatever the input, the answer is success or an error with a code of the specification: never a
traceback, never a hang, and nothing is touched before the input has been understood. A module
in `targets` is a target; `corpus/<target>/` holds its inputs, minimised, one file each, which
the test suite replays. `make fuzz` looks for new ones, guided by coverage (atheris).
"""
