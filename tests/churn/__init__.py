# SPDX-License-Identifier: Apache-2.0
"""Churn: thousands of attachments made and removed, many at once, with plugins killed.

`make churn` runs the long version, the test suite a short one. Afterwards the host has what it
had after the first few: no address, link, rule, element, file, process or memory is lost.
"""
