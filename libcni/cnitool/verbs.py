# SPDX-License-Identifier: Apache-2.0
"""The verbs of the protocol from the command line."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace

from libcni import conf, version
from libcni.api import CNIConfig, PluginFailedError, RuntimeConf, render
from libcni.cache import NetworkAttachment
from libcni.cnitool import settings
from libcni.cnitool.presence import named
from libcni.cnitool.spelling import misspelled_argument
from libcni.jsontext import dumps_indented
from libcni.types.errors import CniError


def run(options: argparse.Namespace) -> None:
    """Do `options.verb`; ADD prints its result, the others nothing on stdout. Raises CniError."""
    network = conf.load_network_conf(settings.configuration_directory(), options.network)
    cni = settings.cni(options.cache_dir or "")
    if options.verb == "status":
        if not _has_newest_verbs(network):
            print(f"the plugins are not asked: {_without(network, 'STATUS')}", file=sys.stderr)
        _ask_status(network, cni)
        return
    if options.verb == "gc":
        _collect(network, cni, options.cache_dir or "")
        return
    attachment = settings.runtime_conf(options.netns, options.ifname or "")
    match options.verb:
        case "add":
            for key in _not_taken(network, attachment):
                print(
                    f'warning: no plugin takes the CAP_ARGS key "{key}": '
                    f'none has "capabilities": {{"{key}": true}}',
                    file=sys.stderr,
                )
            for warning in _misspelled(network, attachment):
                print(f"warning: CAP_ARGS: {warning}", file=sys.stderr)
            result = cni.add_network_list(network, attachment)
            # As Go prints it, without a final newline, but not into somebody's prompt.
            sys.stdout.write(dumps_indented(render(result, network.cni_version)))
            if sys.stdout.isatty():
                sys.stdout.write("\n")
        case "check":
            cni.check_network_list(network, attachment)
        case "del":
            meant = settings.named_namespace(options.netns)
            if meant:
                print(
                    f"warning: nothing is at {attachment.netns}; did you mean {meant}?",
                    file=sys.stderr,
                )
            cni.del_network_list(network, attachment)


def _ask_status(network: conf.NetworkConfigList, cni: CNIConfig) -> None:
    """STATUS of one plugin after the other. Raises PluginFailedError, which names the plugin."""
    for done, plugin in enumerate(network.plugins):
        try:
            cni.get_status_network_list(replace(network, plugins=(plugin,)))
        except CniError as error:
            raise PluginFailedError(plugin, "status", done, error) from error


def _collect(network: conf.NetworkConfigList, cni: CNIConfig, cache_dir: str) -> None:
    """GC, saying on stderr what it has detached, also when some of it fails."""
    if network.disable_gc:
        print("not done: the network has disableGC", file=sys.stderr)
        return
    before = _attached(network, cache_dir)
    if not _has_newest_verbs(network):
        what = (
            "what is remembered as attached is detached by DEL"
            if before
            else "nothing is remembered as attached, so nothing is done"
        )
        print(
            f"the plugins are not asked for GC: {_without(network, 'GC')}; {what}", file=sys.stderr
        )
    try:
        cni.gc_network_list(network, None)
    finally:
        after = _attached(network, cache_dir)
        for one in before:
            if one not in after:
                where = f" ({one.netns})" if one.netns else ""
                print(f"detached {one.container_id} {one.if_name}{where}", file=sys.stderr)


def _attached(network: conf.NetworkConfigList, cache_dir: str) -> list[NetworkAttachment]:
    cached = settings.cache(cache_dir).attachments()
    return [attachment for attachment in cached if attachment.network == network.name]


def _has_newest_verbs(network: conf.NetworkConfigList) -> bool:
    """Whether the network's version has STATUS and GC."""
    return version.greater_or_equal(network.cni_version, "1.1.0")


def _without(network: conf.NetworkConfigList, verb: str) -> str:
    return f"cniVersion {network.cni_version or '0.1.0'} has no {verb} (1.1.0 has)"


def _not_taken(network: conf.NetworkConfigList, attachment: RuntimeConf) -> list[str]:
    """The capability arguments that no plugin of the network declares, so that none gets them."""
    taken = {key for p in network.plugins for key, on in p.capabilities.items() if on}
    return [key for key in attachment.capability_args if key not in taken]


def _misspelled(network: conf.NetworkConfigList, attachment: RuntimeConf) -> list[str]:
    """What looks misspelled inside of capability arguments, as the plugins read them that get
    them: a key that no one reads would be passed over without a word."""
    found = []
    for key, value in attachment.capability_args.items():
        getting = [plugin for plugin in network.plugins if plugin.capabilities.get(key)]
        types = [type_ for plugin in getting for _, type_ in named(plugin)]
        found += misspelled_argument(key, value, types)
    return found
