# SPDX-License-Identifier: Apache-2.0
"""Shell completion: a script for each shell, made from the command line's grammar.

Networks are asked of the very program that was typed, which need not be on PATH. The shells hand
that word over as it was typed, so that `~` and a variable before the first slash are expanded
here; nothing else of it is, as it must not be executed.
"""

from __future__ import annotations

from collections.abc import Iterable
from shlex import quote

from libcni.cnitool.grammar import (
    DIRECTORIES,
    FILES,
    NAMESPACES,
    NETWORKS,
    NOTHING,
    Option,
    Verb,
)

SHELLS = ("bash", "zsh", "fish")

#: How bash and zsh find out where on the line the cursor is: verb, how many of its arguments
#: are there already, and the option whose value is due.
_PLACE = """\
    local verb="" due="" position=0 word i
    for ((i = {first}; i < {cursor}; i++)); do
        word="${{{words}[i]}}"
        if [[ -n $due ]]; then due=""; continue; fi
        case "$word" in
            {valued}) due="$word" ;;
            -*) ;;
            *) if [[ -z $verb ]]; then verb="$word"; else ((++position)); fi ;;
        esac
    done
"""

_BASH = """\
# bash completion for cnitool; load with: source <(cnitool completion bash)
_cnitool_typed() {{
    local tool="${{COMP_WORDS[0]}}" place
    if [[ $tool =~ ^~[A-Za-z0-9_.-]*/ ]]; then
        eval "place=${{BASH_REMATCH[0]}}"
        tool="$place${{tool#*/}}"
    elif [[ $tool =~ ^\\$\\{{?([A-Za-z_][A-Za-z0-9_]*)\\}}?/ ]]; then
        tool="${{!BASH_REMATCH[1]}}/${{tool#*/}}"
    fi
    printf '%s\\n' "$tool"
}}
_cnitool_offer() {{
    local current="${{COMP_WORDS[COMP_CWORD]}}"
    case "$1" in
        {files}) compopt -o filenames 2>/dev/null
            mapfile -t COMPREPLY < <(compgen -f -- "$current") ;;
        {directories}) compopt -o filenames 2>/dev/null
            mapfile -t COMPREPLY < <(compgen -d -- "$current") ;;
        {namespaces}) compopt -o filenames 2>/dev/null
            mapfile -t COMPREPLY < <(compgen -f -- "${{current:-/run/netns/}}") ;;
        {networks}) mapfile -t COMPREPLY < <(compgen -W \\
            "$("$(_cnitool_typed)" list -o names 2>/dev/null)" -- "$current") ;;
        *) mapfile -t COMPREPLY < <(compgen -W "$1" -- "$current") ;;
    esac
}}
_cnitool() {{
{place}    COMPREPLY=()
    if [[ -n $due ]]; then
        case "$due" in
{values}        esac
    elif [[ ${{COMP_WORDS[COMP_CWORD]}} == -* ]]; then
        case "$verb" in
{options}        esac
    else
        case "$verb:$position" in
{arguments}        esac
    fi
}}
complete -F _cnitool cnitool
"""

_ZSH = """\
#compdef cnitool
# zsh completion for cnitool; load with: source <(cnitool completion zsh)
_cnitool_typed() {{
    local tool="$words[1]" match mbegin mend
    if [[ $tool == \\~* ]]; then
        tool=${{~tool}}
    elif [[ $tool =~ '^\\$\\{{?([A-Za-z_][A-Za-z0-9_]*)\\}}?(/.*)$' ]]; then
        tool="${{(P)match[1]}}$match[2]"
    fi
    print -r -- "$tool"
}}
_cnitool_offer() {{
    case "$1" in
        {files}) _files ;;
        {directories}) _files -/ ;;
        {namespaces}) if [[ -n $PREFIX ]]; then _files; else compadd -f -- /run/netns/*(N); fi ;;
        {networks}) compadd -- ${{(f)"$("$(_cnitool_typed)" list -o names 2>/dev/null)"}} ;;
        *) compadd -- ${{=1}} ;;
    esac
}}
_cnitool() {{
{place}    if [[ -n $due ]]; then
        case "$due" in
{values}        esac
    elif [[ $PREFIX == -* ]]; then
        case "$verb" in
{options}        esac
    else
        case "$verb:$position" in
{arguments}        esac
    fi
}}
typeset -f compdef >/dev/null || {{ autoload -Uz compinit && compinit }}
compdef _cnitool cnitool
if [[ $funcstack[1] == _cnitool ]]; then _cnitool "$@"; fi
"""

_FISH = """\
# fish completion for cnitool; load with: cnitool completion fish | source
function __cnitool_typed
    set -l tool (commandline -opc)[1]
    if string match -qr '^~/' -- $tool
        set tool $HOME/(string replace -r '^~/' '' -- $tool)
    else if string match -qr '^\\$\\w+/' -- $tool
        set -l name (string replace -r '^\\$(\\w+)/.*' '$1' -- $tool)
        set tool (string join : -- $$name)/(string replace -r '^[^/]*/' '' -- $tool)
    end
    printf '%s\\n' $tool
end
function __cnitool_networks
    set -l tool (__cnitool_typed)
    command $tool list -o names 2>/dev/null
end
function __cnitool_namespaces
    set -l token (commandline -ct)
    test -n "$token"; or set token /run/netns/
    __fish_complete_path $token
end
function __cnitool_place
    set -l verb ''
    set -l due ''
    set -l position 0
    for word in (commandline -opc)[2..-1]
        if test -n "$due"
            set due ''
            continue
        end
        switch $word
            case {valued}
                set due $word
            case '-*'
            case '*'
                if test -z "$verb"
                    set verb $word
                else
                    set position (math $position + 1)
                end
        end
    end
    echo $verb:$position
end
function __cnitool_at
    string match -q -- $argv[1] (__cnitool_place)
end
complete -c cnitool -f
"""


def script(shell: str, verbs: list[Verb]) -> str:
    """The completion script for one of SHELLS. verbs: see `grammar.verbs`."""
    if shell == "fish":
        return _FISH.format(valued=" ".join(_valued(verbs))) + "".join(_fish_lines(verbs))
    is_bash = shell == "bash"
    place = _PLACE.format(
        first=1 if is_bash else 2,
        cursor="COMP_CWORD" if is_bash else "CURRENT",
        words="COMP_WORDS" if is_bash else "words",
        valued="|".join(_valued(verbs)),
    )
    return (_BASH if is_bash else _ZSH).format(
        place=place,
        values="".join(_case("|".join(o.names), o.value or "") for o in _with_values(verbs)),
        options="".join(_case(verb.name or '""', " ".join(_names(verb))) for verb in verbs),
        arguments="".join(_case(place, kind) for place, kind in _arguments(verbs)),
        files=quote(FILES),
        directories=quote(DIRECTORIES),
        namespaces=quote(NAMESPACES),
        networks=quote(NETWORKS),
    )


def _case(pattern: str, kind: str) -> str:
    return f"            {pattern}) _cnitool_offer {quote(kind)} ;;\n" if kind else ""


def _arguments(verbs: list[Verb]) -> Iterable[tuple[str, str]]:
    """VERB:POSITION as a pattern of the shells, and what may be there."""
    yield ":0", " ".join(verb.name for verb in verbs if verb.name)
    for verb in verbs:
        if not verb.name:
            continue
        for position, kind in enumerate(verb.arguments):
            is_last = position == len(verb.arguments) - 1
            yield f"{verb.name}:{'*' if is_last and verb.is_endless else position}", kind


def _names(verb: Verb) -> list[str]:
    return [name for option in verb.options for name in option.names]


def _with_values(verbs: list[Verb]) -> list[Option]:
    """Every option that takes a value, each once: none means one thing to a verb and another to
    the next."""
    found = {o.names: o for verb in verbs for o in verb.options if o.value is not None}
    return list(found.values())


def _valued(verbs: list[Verb]) -> list[str]:
    return [name for option in _with_values(verbs) for name in option.names]


def _fish_lines(verbs: list[Verb]) -> Iterable[str]:
    for verb in verbs:
        at = "-n " + quote(f"__cnitool_at '{verb.name}:*'")
        for option in verb.options:
            words = [
                f"-s {name[1:]}" if len(name) == 2 else f"-l {name[2:]}" for name in option.names
            ]
            if option.value in (FILES, DIRECTORIES):
                words.append("-rF")
            elif option.value is not None:
                words.append("-x")
                if option.value != NOTHING:
                    words.append(f"-a {quote(option.value)}")
            yield f"complete -c cnitool {at} {' '.join(words)} -d {quote(option.help)}\n"
        if verb.name:
            first = "-n " + quote("__cnitool_at ':0'")
            yield f"complete -c cnitool {first} -a {verb.name} -d {quote(verb.help)}\n"
    for place, kind in _arguments(verbs):
        if kind == NOTHING or place == ":0":
            continue
        at = "-n " + quote(f"__cnitool_at '{place}'")
        offered = {
            FILES: "-F",
            NAMESPACES: "-a '(__cnitool_namespaces)'",
            NETWORKS: "-a '(__cnitool_networks)'",
        }.get(kind, f"-a {quote(kind)}")
        yield f"complete -c cnitool {at} {offered}\n"
