"""Write a script that completes the words of ``entprop`` in bash and zsh.

The script holds all that can be typed, as text: pressing TAB starts no Python. One function serves
both shells; zsh runs it through ``bashcompinit``, its own layer for functions of bash.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

FILES = "@files"  # among values: any path
NOTHING = "@nothing"  # the flag takes no value

_HEADS = {
    "bash": "# bash completion of entprop: written by `entprop completion bash`\n",
    "zsh": """#compdef entprop
# zsh completion of entprop: written by `entprop completion zsh`
autoload -Uz bashcompinit && bashcompinit
""",
}

# COMP_WORDS is what was typed; bash makes three words of folder:PATH and of --flag=VALUE, zsh one.
_FUNCTION = r"""
_entprop_paths() { # -f or -d (folders alone), and how they begin
  local IFS=$'\n' one
  if [[ -z "${ZSH_VERSION-}" ]]; then
    COMPREPLY+=($(compgen "$1" -- "$2"))
    compopt -o filenames 2>/dev/null # quotes names, ends folders in a slash
    return
  fi
  for one in "$2"*; do # compgen of zsh begins with what was typed, folder: and all
    if [[ -d "$one" || ( "$1" == -f && -e "$one" ) ]]; then COMPREPLY+=("$one"); fi
  done
}

_entprop_behind() { # folder: are folders; what timm: and others name is not known here
  if [[ "$1" == folder ]]; then _entprop_paths -d "$2"; fi
}

_entprop() {
  local current="${COMP_WORDS[COMP_CWORD]}" command="${COMP_WORDS[1]}" flag="" after=0 values="" i
  COMPREPLY=()
  if [[ $COMP_CWORD -le 1 ]]; then
    COMPREPLY=($(compgen -W "$(_entprop_commands) --help --version" -- "$current"))
    return
  fi
  for ((i = 2; i < COMP_CWORD; i++)); do
    case "${COMP_WORDS[i]}" in
      --*) flag="${COMP_WORDS[i]}" after=0 ;;
      =) ;;
      *) after=$((after + 1)) ;;
    esac
  done
  if [[ "$current" == = ]]; then current=""; fi
  if [[ "$current" == : ]]; then _entprop_behind "${COMP_WORDS[COMP_CWORD - 1]}" ""; return; fi
  if [[ "${COMP_WORDS[COMP_CWORD - 1]}" == : ]]; then
    _entprop_behind "${COMP_WORDS[COMP_CWORD - 2]}" "$current"
    return
  fi
  if [[ "$current" == folder:* ]]; then
    _entprop_paths -d "${current#folder:}"
    local one found=("${COMPREPLY[@]}")
    COMPREPLY=()
    for one in "${found[@]}"; do COMPREPLY+=("folder:$one"); done
    return
  fi
  if [[ -n "$flag" ]]; then
    if [[ $after -eq 0 || "$(_entprop_many "$command")" == *" $flag "* ]]; then
      values="$(_entprop_values "$command $flag")"
    fi
  fi
  if [[ "$current" == -* ]]; then
    values="$(_entprop_flags "$command")"
  elif [[ -z "$values" || "$values" == *" @nothing "* ]]; then
    values="$(_entprop_values "$command") $(_entprop_flags "$command")"
  fi
  if [[ "$values" == *" @files "* ]]; then _entprop_paths -f "$current"; fi
  COMPREPLY+=($(compgen -W "${values// @files / }" -- "$current"))
  if [[ -z "${ZSH_VERSION-}" && ${#COMPREPLY[@]} -eq 1 && "${COMPREPLY[0]}" == *: ]]; then
    compopt -o nospace 2>/dev/null # a path or a name is typed behind folder: and timm:
  fi
}

complete -o bashdefault -F _entprop entprop
"""


@dataclass(frozen=True)
class Flags:
    """Hold what may be typed after a command.

    Attributes:
        values: what may follow each flag, `FILES` for any path; None: it takes no value.
        many: flags that take several values.
        words: what may be typed without a flag.
    """

    values: Mapping[str, Sequence[str] | None]
    many: set[str]
    words: Sequence[str]


def script(shell: str, commands: Mapping[str, Flags]) -> str:
    """Return the script for a shell, ``bash`` or ``zsh``.

    Args:
        shell: one of them.
        commands: by the name that is typed.
    """
    functions = [
        _function("commands", [("*", commands)]),
        _function("flags", ((name, one.values) for name, one in commands.items())),
        _function("many", ((name, one.many) for name, one in commands.items() if one.many)),
        _function("values", _values(commands)),
    ]
    return _HEADS[shell] + "".join(functions) + _FUNCTION


def _values(commands: Mapping[str, Flags]) -> Iterator[tuple[str, Sequence[str]]]:
    for name, one in commands.items():
        yield name, one.words
        for flag, values in one.values.items():
            yield f"{name} {flag}", [NOTHING] if values is None else values


def _function(name: str, cases: Iterable[tuple[str, Iterable[str]]]) -> str:
    """Write a function that prints the words of the case that its arguments name."""
    lines = [f"\n_entprop_{name}() {{", '  case "$*" in']
    for case, words in cases:
        pattern = case if case == "*" else shlex.quote(case)
        listed = " ".join(words)
        lines.append(f"    {pattern}) echo {shlex.quote(f' {listed} ')} ;;")
    return "\n".join([*lines, "  esac", "}", ""])
