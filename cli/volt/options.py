"""What a verb takes, said once: the parser, the help text and the completion all read it.

argparse would cost every start of the command some 4 ms, and a dozen more for what it imports.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from volt.settings import Settings
    from volt_common.errors import Usage


def usage(message: str, hint: str = "") -> Usage:
    """The error for a wrong command line."""
    from volt_common.errors import Usage

    return Usage(message, hint=hint)


class Option:
    """`-m, --memory SIZE`; a flag when there is no metavar. The last name is the one it is asked for by."""

    __slots__ = ("choices", "complete", "help", "metavar", "names", "repeat")

    def __init__(
        self,
        *names: str,
        help: str,
        metavar: str = "",
        repeat: bool = False,
        choices: Sequence[str] = (),
        complete: str = "",
    ) -> None:
        self.names = names
        self.help = help
        self.metavar = metavar
        self.repeat = repeat
        self.choices = tuple(choices)
        self.complete = complete  # what completion offers: containers, images, refs, files

    @property
    def key(self) -> str:
        return self.names[-1]


class Argument:
    """A positional word. `many` takes one or more, `optional` none or one, `rest` everything that follows
    untouched, so that a payload's own options need no quoting."""

    __slots__ = ("choices", "complete", "help", "many", "name", "optional", "rest")

    def __init__(
        self,
        name: str,
        help: str,
        *,
        many: bool = False,
        optional: bool = False,
        rest: bool = False,
        choices: Sequence[str] = (),
        complete: str = "",
    ) -> None:
        self.name = name
        self.help = help
        self.many = many
        self.optional = optional
        self.rest = rest
        self.choices = tuple(choices)
        self.complete = complete

    @property
    def shown(self) -> str:
        text = self.name + ("…" if self.many or self.rest else "")
        return f"[{text}]" if self.optional or self.rest else text


class Verb:
    """One verb: what it says of itself, what it takes, and what it does."""

    __slots__ = ("about", "arguments", "changes", "detail", "examples", "options", "run")

    def __init__(
        self,
        about: str,
        run: Callable[[Asked, Settings], int],
        *,
        examples: Sequence[str],
        options: Sequence[Option] = (),
        arguments: Sequence[Argument] = (),
        changes: bool = False,
        detail: str = "",
    ) -> None:
        self.about = about
        self.run = run
        self.examples = tuple(examples)
        self.options = tuple(options)
        self.arguments = tuple(arguments)
        self.changes = changes  # has an effect, so --dry-run makes sense
        self.detail = detail


class Asked:
    """What was asked on the command line, by an option's last name or an argument's name."""

    def __init__(self, command: str = "") -> None:
        self.command = command  # "container stop", as it was typed
        self._values: dict[str, list[str]] = {}

    def add(self, key: str, value: str) -> None:
        self._values.setdefault(key, []).append(value)

    def flag(self, key: str) -> bool:
        return key in self._values

    def text(self, key: str) -> str | None:
        """The last value given, or None."""
        return self._values[key][-1] if key in self._values else None

    def one(self, key: str) -> str:
        """The value of an argument that the parser made sure of."""
        return self._values[key][-1]

    def texts(self, key: str) -> list[str]:
        """Every value given, in order."""
        return list(self._values.get(key, ()))

    def number(self, key: str) -> int | None:
        """Raises Usage."""
        text = self.text(key)
        if text is None:
            return None
        if not (text.isascii() and text.isdigit()):
            raise usage(f"{key} takes a number, not {text!r}")
        return int(text)

    def size(self, key: str) -> int | None:
        """Bytes: `512M`, `1G`, `1.5GiB`, `4096`. Raises Usage."""
        text = self.text(key)
        return None if text is None else parse_size(key, text)

    def seconds(self, key: str) -> float | None:
        """A span: `30`, `1.5s`, `2m`, `1h`. Raises Usage."""
        text = self.text(key)
        return None if text is None else parse_seconds(key, text)


def parse_size(key: str, text: str) -> int:
    """Powers of 1024, as in systemd and Docker. Raises Usage."""
    number = text.upper().removesuffix("B").removesuffix("I")
    shift = 0
    if number and number[-1] in "KMGT":
        shift = "KMGT".index(number[-1]) * 10 + 10
        number = number[:-1]
    try:
        value = float(number)
        if not 0 <= value < 1 << 60:
            raise ValueError
        return int(value * (1 << shift))
    except ValueError:
        raise usage(f"{key} takes a size, not {text!r}", "Write it as 512M or 1G.") from None


def parse_seconds(key: str, text: str) -> float:
    """Raises Usage."""
    number, unit = text, 1.0
    for suffix, factor in (("ms", 0.001), ("s", 1.0), ("m", 60.0), ("h", 3600.0), ("d", 86400.0)):
        if text.endswith(suffix):
            number, unit = text[: -len(suffix)], factor
            break
    try:
        value = float(number) * unit
        if not 0 <= value < 1e9:
            raise ValueError
    except ValueError:
        raise usage(f"{key} takes a time, not {text!r}", "Write it as 30, 1.5s, 2m or 1h.") from None
    return value


OUTPUTS = ("table", "wide", "json", "yaml", "name")
COLORS = ("auto", "always", "never")

GLOBAL = (
    Option("-o", "--output", metavar="FORM", choices=OUTPUTS, help="form of the output"),
    Option("--no-header", help="no line of titles above a table"),
    Option("--color", metavar="WHEN", choices=COLORS, help="colours, by default on a terminal"),
    Option("-q", "--quiet", help="only what was asked for: no progress, no confirmation"),
    Option("--debug", help="show where an error comes from"),
    Option("--timeout", metavar="TIME", help="give up after this long: 30, 2m"),
    Option("--host", metavar="PATH", complete="files", help="directory of the daemons' sockets (/run/volt)"),
    Option("--context", metavar="NAME", help="which installation; only `default` so far"),
    Option("--dry-run", help="say what would change, and change nothing"),
    Option("-h", "--help", help="this text"),
)
"""Taken before the noun, and among the verb's own options as well."""

LIST = (
    Option("--filter", metavar="KEY=VALUE", repeat=True, help="only what has this; KEY!=VALUE for what has not"),
    Option("--sort", metavar="KEY", help="by this field; -KEY for the other way round"),
    Option("--format", metavar="TEXT", help="each as this text, with fields in braces: '{name} {state}'"),
)
"""What every verb that lists takes."""


def parse_globals(words: Sequence[str], asked: Asked) -> int:
    """Take the options before the noun into `asked`; returns how many words they were. Raises Usage."""
    return _take(words, GLOBAL, asked)[0]


def parse(verb: Verb, words: Sequence[str], asked: Asked) -> None:
    """Take a verb's options and arguments into `asked`. Raises Usage."""
    rest = any(argument.rest for argument in verb.arguments)
    fixed = sum(not argument.rest for argument in verb.arguments)
    plain: list[str] = []
    at = 0
    while True:
        if rest and len(plain) >= fixed:
            tail = list(words[at:])
            plain += tail[1:] if tail[:1] == ["--"] else tail
            break
        used, ended = _take(words[at:], verb.options + GLOBAL, asked)
        at += used
        if ended:
            plain += words[at:]
            break
        if at >= len(words):
            break
        plain.append(words[at])
        at += 1
    if not asked.flag("--help"):
        _arguments(verb, plain, asked)


def _arguments(verb: Verb, plain: list[str], asked: Asked) -> None:
    for position, argument in enumerate(verb.arguments):
        needed = sum(not (later.optional or later.rest) for later in verb.arguments[position + 1 :])
        if argument.rest or argument.many:
            count = len(plain) - needed
        else:
            count = 1 if not argument.optional or len(plain) > needed else 0
        taken, plain = plain[: max(0, count)], plain[max(0, count) :]
        if not taken and not (argument.optional or argument.rest):
            raise usage(f"{argument.name} is missing", f"Example: {verb.examples[0]}")
        for value in taken:
            if argument.choices and value not in argument.choices:
                raise _no_choice(argument.name, value, argument.choices)
            asked.add(argument.name, value)
    if plain:
        raise usage(f"{plain[0]!r} is one argument too many", f"Example: {verb.examples[0]}")


def _take(words: Sequence[str], options: Sequence[Option], asked: Asked) -> tuple[int, bool]:
    """How many leading words were options, and whether `--` ended them."""
    at = 0
    while at < len(words):
        word = words[at]
        if word == "--":
            return at + 1, True
        if not word.startswith("-") or word == "-":
            return at, False
        at += 1
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            option = _find(name, options)
            if not option.metavar:
                if equals:
                    raise usage(f"{name} takes no value")
                asked.add(option.key, "")
                continue
            if not equals:
                value, at = _value(words, at, option)
            _set(option, value, asked)
            continue
        letters = word[1:]
        while letters:
            option = _find("-" + letters[0], options)
            letters = letters[1:]
            if not option.metavar:
                asked.add(option.key, "")
                continue
            if letters:
                value = letters.removeprefix("=")
            else:
                value, at = _value(words, at, option)
            _set(option, value, asked)
            break
    return at, False


def _find(name: str, options: Sequence[Option]) -> Option:
    for option in options:
        if name in option.names:
            return option
    from volt.near import suggestion

    known = [n for option in options for n in option.names if n.startswith("--")]
    raise usage(f"unknown option {name}", suggestion(name, known) or "--help lists the options.")


def _value(words: Sequence[str], at: int, option: Option) -> tuple[str, int]:
    if at >= len(words):
        raise usage(f"{option.key} needs a value: {option.metavar}")
    return words[at], at + 1


def _set(option: Option, value: str, asked: Asked) -> None:
    if option.choices and value not in option.choices:
        raise _no_choice(option.key, value, option.choices)
    asked.add(option.key, value)


def _no_choice(key: str, value: str, choices: Sequence[str]) -> Usage:
    from volt.near import suggestion

    return usage(f"{key} is one of {', '.join(choices)}, not {value!r}", suggestion(value, choices))
