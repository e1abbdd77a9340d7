"""`--help`, from what each verb says of itself."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from volt.options import Option, Verb


def overview(nouns: Mapping[str, Mapping[str, str]], options: Sequence[Option]) -> None:
    """`volt --help`."""
    print("volt [options] <noun> <verb> [arguments]\n")
    print("Containers as native systemd units, over one content-addressed store.\n")
    print("  " + _wrap(" ".join(nouns[""]), 2).lstrip() + "\n")
    for name, verbs in nouns.items():
        if name:
            print(f"  {name:<12}" + _wrap(" ".join(verbs), 14).lstrip())
    print("\nOptions, anywhere before a payload's own words:")
    _options(options)
    print("\nExamples:\n  volt image build debian --suite bookworm\n  volt run -it debian bash\n  volt stop --help")


def noun(name: str, verbs: Mapping[str, str]) -> None:
    """`volt container --help`: here every module is imported for its one line."""
    from volt.main import load

    print(f"volt {name} <verb> [arguments]\n")
    for verb, module in verbs.items():
        print(f"  {verb:<10}{load(module).about}")
    first = next(iter(verbs.values()))
    print(f"\nExample:\n  {load(first).examples[0]}\n\n`volt {name} <verb> --help` tells more.")


def page(command: str, verb: Verb, options: Sequence[Option]) -> None:
    """`volt container stop --help`."""
    takes = " ".join(argument.shown for argument in verb.arguments)
    print(f"volt {command} [options] {takes}".rstrip() + "\n")
    print(f"{verb.about}\n")
    if verb.detail:
        print(f"{verb.detail}\n")
    if verb.arguments:
        for argument in verb.arguments:
            print(f"  {argument.name:<24}{_wrap(argument.help, 26).lstrip()}")
        print()
    if verb.options:
        print("Options:")
        _options(verb.options)
        print()
    print("Options of every command:")
    own = {name for option in verb.options for name in option.names}
    _options([o for o in options if o.key not in own and (verb.changes or o.key != "--dry-run")])
    print("\nExample:" if len(verb.examples) == 1 else "\nExamples:")
    for example in verb.examples:
        print(f"  {example}")


def _options(options: Sequence[Option]) -> None:
    for option in options:
        names = ", ".join(option.names) if option.names[0][1] != "-" else "    " + ", ".join(option.names)
        left = f"{names} {option.metavar}".rstrip()
        text = option.help
        if option.choices:
            text += f" ({', '.join(option.choices)})"
        if option.repeat:
            text += "; may be repeated"
        gap = f"  {left}\n{'':26}" if len(left) > 22 else f"  {left:<24}"
        print(gap + _wrap(text, 26).lstrip())


def _wrap(text: str, indent: int, width: int = 100) -> str:
    lines, line = [], " " * indent
    for word in text.split():
        if len(line) + len(word) > width and line.strip():
            lines.append(line.rstrip())
            line = " " * indent
        line += word + " "
    return "\n".join([*lines, line.rstrip()])
