"""`volt completion bash`."""

from __future__ import annotations

from volt.options import Asked, Verb

TYPE_CHECKING = False
if TYPE_CHECKING:
    from volt.settings import Settings

SCRIPT = r"""_volt() {
    local line
    COMPREPLY=()
    # readline breaks words at ':' and '='; the command wants them whole
    local words=("${COMP_WORDS[@]}") cword=$COMP_CWORD cur=${COMP_WORDS[COMP_CWORD]}
    if declare -F _get_comp_words_by_ref >/dev/null; then
        _get_comp_words_by_ref -n :=  -w words -i cword -c cur
    fi
    while IFS= read -r line; do
        if [ "$line" = ":files" ]; then
            compopt -o default 2>/dev/null
            COMPREPLY+=($(compgen -f -- "$cur"))
        else
            COMPREPLY+=("${line%%$'\t'*}")
        fi
    done < <(volt __complete "${words[@]:1:cword}" 2>/dev/null)
    if declare -F __ltrim_colon_completions >/dev/null; then __ltrim_colon_completions "$cur"; fi
}
complete -F _volt volt
"""


def run(_: Asked, _settings: Settings) -> int:
    print(SCRIPT, end="")
    return 0


VERB = Verb("Completion for bash.", run, examples=("volt completion bash > /etc/bash_completion.d/volt",))
