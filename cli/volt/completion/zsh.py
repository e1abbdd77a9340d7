"""`volt completion zsh`."""

from __future__ import annotations

from volt.options import Asked, Verb

TYPE_CHECKING = False
if TYPE_CHECKING:
    from volt.settings import Settings

SCRIPT = r"""#compdef volt
_volt() {
    local -a plain
    local line
    for line in "${(@f)$(volt __complete "${(@)words[2,CURRENT]}" 2>/dev/null)}"; do
        case $line in
            '') ;;
            :files) _files ;;
            *) plain+=("${line%%$'\t'*}") ;;
        esac
    done
    compadd -a plain
}
if [ "$funcstack[1]" = "_volt" ]; then _volt "$@"; else compdef _volt volt; fi
"""


def run(_: Asked, _settings: Settings) -> int:
    print(SCRIPT, end="")
    return 0


VERB = Verb("Completion for zsh.", run, examples=('volt completion zsh > "${fpath[1]}/_volt"',))
