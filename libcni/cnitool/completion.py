# SPDX-License-Identifier: Apache-2.0
"""Shell completion, generated from the parser so that it cannot lag behind it."""

from __future__ import annotations

import argparse

SHELLS = ("bash", "zsh", "fish")

#: Verbs whose first argument is a network and whose second is a namespace.
_NETWORK_VERBS = "add|check|del|gc|status"

_BASH = """# bash completion for cnitool; load with: source <(cnitool completion bash)
_cnitool() {{
    local current="${{COMP_WORDS[COMP_CWORD]}}" previous="${{COMP_WORDS[COMP_CWORD-1]}}"
    local verb="" position=0 word i
    for ((i = 1; i < COMP_CWORD; i++)); do
        word="${{COMP_WORDS[i]}}"
        case "$word" in
            -i|--ifname|--cache-dir|-o|--output) ((i++)) ;;
            -*) ;;
            *) if [[ -z $verb ]]; then verb="$word"; else ((position++)); fi ;;
        esac
    done
    case "$previous" in
        -o|--output) COMPREPLY=($(compgen -W "table json names" -- "$current")); return ;;
        --cache-dir) COMPREPLY=($(compgen -d -- "$current")); return ;;
    esac
    if [[ $current == -* ]]; then
        COMPREPLY=($(compgen -W "{options}" -- "$current")); return
    fi
    case "$verb" in
        "") COMPREPLY=($(compgen -W "{verbs}" -- "$current")) ;;
        {network_verbs})
            if ((position == 0)); then
                COMPREPLY=($(compgen -W "$(cnitool list -o names 2>/dev/null)" -- "$current"))
            else
                COMPREPLY=($(compgen -f -- "${{current:-/run/netns/}}"))
            fi ;;
        validate) COMPREPLY=($(compgen -f -- "$current")) ;;
        completion) COMPREPLY=($(compgen -W "{shells}" -- "$current")) ;;
    esac
}}
complete -F _cnitool cnitool
"""

_ZSH_HEAD = """#compdef cnitool
# zsh completion for cnitool; load with: source <(cnitool completion zsh)
autoload -U +X bashcompinit && bashcompinit
"""

_FISH_HEAD = """# fish completion for cnitool; load with: cnitool completion fish | source
complete -c cnitool -f
complete -c cnitool -s i -l ifname -x -d 'interface name'
complete -c cnitool -l cache-dir -r -d 'where results are remembered'
complete -c cnitool -s V -l version -d 'print the version'
"""

_FISH_TAIL = """for verb in {network_verbs}
    complete -c cnitool -n "__fish_seen_subcommand_from $verb" \\
        -a '(cnitool list -o names 2>/dev/null) (__fish_complete_path)'
end
complete -c cnitool -n '__fish_seen_subcommand_from validate' -F
complete -c cnitool -n '__fish_seen_subcommand_from validate' -l plugins -d 'ask every plugin'
complete -c cnitool -n '__fish_seen_subcommand_from list' -s o -l output -xa 'table json names'
complete -c cnitool -n '__fish_seen_subcommand_from completion' -a '{shells}'
"""


def script(shell: str, parser: argparse.ArgumentParser) -> str:
    """The completion script for one of SHELLS."""
    verbs = _verbs(parser)
    if shell == "fish":
        lines = [
            f"complete -c cnitool -n __fish_use_subcommand -a {verb} -d '{text}'\n"
            for verb, text in verbs.items()
        ]
        tail = _FISH_TAIL.format(
            network_verbs=_NETWORK_VERBS.replace("|", " "), shells=" ".join(SHELLS)
        )
        return _FISH_HEAD + "".join(lines) + tail
    bash = _BASH.format(
        verbs=" ".join(verbs),
        options=" ".join(_options(parser)),
        network_verbs=_NETWORK_VERBS,
        shells=" ".join(SHELLS),
    )
    if shell == "bash":
        return bash
    return _ZSH_HEAD + bash.partition("\n")[2]


def _options(parser: argparse.ArgumentParser) -> list[str]:
    """Every option of the tool and its verbs, each once."""
    found: list[str] = []
    for action in parser._actions:
        found += action.option_strings
        if isinstance(action, argparse._SubParsersAction):
            for sub in action.choices.values():
                found += _options(sub)
    return list(dict.fromkeys(found))


def _verbs(parser: argparse.ArgumentParser) -> dict[str, str]:
    """Every verb with its help, as the parser knows them."""
    found: dict[str, str] = {}
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for choice in action._choices_actions:
                found[choice.dest] = choice.help or ""
    return found
