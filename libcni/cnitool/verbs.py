# SPDX-License-Identifier: Apache-2.0
"""The verbs of the protocol from the command line."""

from __future__ import annotations

import argparse
import sys

from libcni import conf
from libcni.api import render
from libcni.cnitool import settings
from libcni.jsontext import dumps_indented


def run(options: argparse.Namespace) -> None:
    """Do `options.verb`; ADD prints its result, the others nothing. Raises CniError."""
    network = conf.load_network_conf(settings.configuration_directory(), options.network)
    cni = settings.cni(options.cache_dir or "")
    if options.verb == "status":
        cni.get_status_network_list(network)
        return
    if options.verb == "gc":
        cni.gc_network_list(network, None)
        return
    attachment = settings.runtime_conf(options.netns, options.ifname or "")
    match options.verb:
        case "add":
            result = cni.add_network_list(network, attachment)
            # As Go prints it, without a final newline, but not into somebody's prompt.
            sys.stdout.write(dumps_indented(render(result, network.cni_version)))
            if sys.stdout.isatty():
                sys.stdout.write("\n")
        case "check":
            cni.check_network_list(network, attachment)
        case "del":
            cni.del_network_list(network, attachment)
