# SPDX-License-Identifier: Apache-2.0
"""The regular expressions of tuning's allow-list: read as Go's plugin reads them."""

from __future__ import annotations

import re
import warnings

import pytest

from cni_tuning.re2 import _CLASSES, matches

KEY = "net.ipv4.conf.eth0.arp_filter"


@pytest.mark.parametrize(
    ("expression", "text", "expected"),
    [
        (r"^net\.ipv4\.conf\.[[:alnum:]]+\.arp_filter$", KEY, True),
        (r"^net\.ipv4\.conf\.[[:alpha:]]+\.arp_filter$", KEY, False),
        (r"conf\.[^[:^alnum:]]+\.", KEY, True),
        (r"conf\.[[:^digit:].]+\.", KEY, False),
        (r"eth[[:digit:]_]", KEY, True),
        (r"arp_filter\z", KEY, True),
        (r"arp\z", KEY, False),
        (r"^\Qnet.ipv4\E\.", KEY, True),
        (r"^\Qnet.ipv4.", KEY, True),
        (r"^\Qnet.ipv4.", "net-ipv4-", False),
        (r"^\x{6e}et", KEY, True),
        (r"^[\x{6e}]et", KEY, True),
        (r"[]a]rp", KEY, True),
        (r"[a[]rp", KEY, True),
        (r"[a&&b||c~~]rp", KEY, True),
        (r"[+--]rp", "-rp", True),
        (r"e{,5}", KEY, False),
        (r"e{,5}", "e{,5}", True),
        (r"(?i)NET", KEY, True),
        (r"\d", "٣", False),
        (r"[[:x]", ":", True),
        (r"\156\0145\x74\.", KEY, False),
        (r"\156\x65\x74\.", KEY, True),
        (r"[\156]et\b", KEY, True),
        (r"(?P<first>n)(?<second>e)(?:t)(?s:.)", KEY, True),
        (r"ne+?t}+", "net}}", True),
        (r"n{1}?e{1,}?t{1,2}", KEY, True),
        (r"\{2}+", "{2}}", True),
        (r"t{x}+", "t{x}}", True),
        (r"t{1,x}", "t{1,x}", True),
        (r"^net\.ipv4\.conf\.[\w-.]+\.arp_filter$", KEY.replace("eth0", "a-b.7"), True),
        (r"[[:alpha:]-.]rp", "-rp", True),
        (r"[\d-]rp", "-rp", True),
        (r"[\d-]rp", ".rp", False),
        (r"[a\d-z]rp", "yrp", False),
    ],
)
def test_what_matches(expression: str, text: str, expected: bool) -> None:
    """And nothing is said on stderr."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert matches(expression, text) == expected


@pytest.mark.parametrize(
    ("expression", "words"),
    [
        ("(", "missing"),
        ("[a", "missing closing ]"),
        (r"\pL", "Unicode"),
        (r"[\PL]", "Unicode"),
        ("[[:letters:]]", "[:letters:]"),
        ("a(?i)b", "flags"),
        (r"\x{zz}", "\\x{"),
        (r"\x{110000}", "\\x{"),
        ("\\", "escape"),
        ("a{99999999999}", "large"),
        ("a{1001}", "large"),
        ("a{1,1001}", "large"),
        ("(?U)net", "flags such as (?U)"),
        ("(?-s:net)", "flags such as (?-s)"),
        # Python's alone.
        ("net(?!b)", "(?!"),
        ("net(?=.)", "(?="),
        ("(?<=n)et", "(?<="),
        ("(?<!m)et", "(?<!"),
        ("(?>net)", "(?>"),
        ("(?#what)net", "(?#"),
        ("(?x)n e t", "(?x)"),
        ("(?P<a>t)(?P=a)?", "(?P="),
        (r"(t)\1?", "\\1"),
        ("te*+", "repetition"),
        ("te{1,2}+", "repetition"),
        (r"arp_filter\Z", "\\Z"),
        (r"\u006eet", "\\u"),
        (r"\N{LATIN SMALL LETTER N}et", "\\N"),
        (r"[\Qn]\E]et", "\\Q"),
        (r"[\bn]et", "\\b in a class"),
    ],
)
def test_what_is_not_understood(expression: str, words: str) -> None:
    with pytest.raises(ValueError, match=re.escape(words)):
        matches(expression, KEY)


@pytest.mark.parametrize("name", _CLASSES)
def test_a_class_and_its_complement(name: str) -> None:
    """Each character is in one of the two."""
    for code in (*range(256), 0x10FFFF):
        character = chr(code)
        inside = matches(f"^[[:{name}:]]\\z", character)
        assert matches(f"^[[:^{name}:]]\\z", character) != inside
        assert code < 128 or not inside
