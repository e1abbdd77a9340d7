"""`volt completion fish`."""

from __future__ import annotations

from volt.options import Asked, Verb

TYPE_CHECKING = False
if TYPE_CHECKING:
    from volt.settings import Settings

SCRIPT = r"""function __volt_complete
    set -l words (commandline -opc) (commandline -ct)
    for line in (volt __complete $words[2..-1] 2>/dev/null)
        if test "$line" = ":files"
            __fish_complete_path (commandline -ct)
        else
            echo $line
        end
    end
end
complete -c volt -f -a '(__volt_complete)'
"""


def run(_: Asked, _settings: Settings) -> int:
    print(SCRIPT, end="")
    return 0


VERB = Verb("Completion for fish.", run, examples=("volt completion fish > ~/.config/fish/completions/volt.fish",))
