"""The parser: options anywhere, values in every usual form, and what a payload's words are."""

import pytest

from volt.options import Argument, Asked, Option, Verb, parse, parse_globals, parse_seconds, parse_size
from volt.settings import gather
from volt_common.errors import NotFound, Usage

VERB = Verb(
    "A test.",
    lambda asked, settings: 0,
    examples=("volt x",),
    options=(
        Option("-i", "--interactive", help="flag"),
        Option("-t", "--tty", help="flag"),
        Option("-e", "--env", metavar="K=V", repeat=True, help="many"),
        Option("--mode", metavar="MODE", choices=("one", "two"), help="choice"),
    ),
    arguments=(Argument("IMAGE", "an image"), Argument("COMMAND", "and more", rest=True)),
)
MANY = Verb("Many.", lambda a, s: 0, examples=("volt m",), arguments=(Argument("NAME", "names", many=True),))
LAST = Verb(
    "Last.",
    lambda a, s: 0,
    examples=("volt l",),
    arguments=(Argument("NAME", "names", many=True), Argument("PLACE", "one")),
)


def asked(words, verb=VERB):
    found = Asked("test")
    parse(verb, words, found)
    return found


@pytest.mark.parametrize(
    ("words", "env"),
    [
        (["-e", "A=1", "img"], ["A=1"]),
        (["-eA=1", "img"], ["A=1"]),
        (["--env", "A=1", "img"], ["A=1"]),
        (["--env=A=1", "img"], ["A=1"]),
        (["-e", "A=1", "-e", "B=2", "img"], ["A=1", "B=2"]),
        (["-ite", "A=1", "img"], ["A=1"]),
        (["img"], []),
    ],
)
def test_an_option_takes_its_value_in_every_usual_form(words, env):
    found = asked(words)
    assert found.texts("--env") == env
    assert found.one("IMAGE") == "img"


def test_flags_can_be_joined():
    found = asked(["-it", "img"])
    assert found.flag("--interactive")
    assert found.flag("--tty")


def test_what_follows_the_image_is_the_payload_s():
    found = asked(["img", "ls", "-l", "--mode", "three", "-x"])
    assert found.texts("COMMAND") == ["ls", "-l", "--mode", "three", "-x"]
    assert not found.flag("--mode")


def test_two_hyphens_before_the_payload_are_dropped_once():
    assert asked(["img", "--", "ls", "--", "-l"]).texts("COMMAND") == ["ls", "--", "-l"]


def test_two_hyphens_end_the_options():
    assert asked(["--", "-name", "b"], MANY).texts("NAME") == ["-name", "b"]


def test_global_options_are_taken_among_the_verb_s_own():
    found = asked(["-o", "json", "a", "-q", "b"], MANY)
    assert found.text("--output") == "json"
    assert found.flag("--quiet")
    assert found.texts("NAME") == ["a", "b"]


def test_an_argument_after_many_takes_the_last():
    found = asked(["a", "b", "c"], LAST)
    assert found.texts("NAME") == ["a", "b"]
    assert found.one("PLACE") == "c"


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ([], "IMAGE is missing"),
        (["--envv", "x", "img"], "unknown option --envv"),
        (["-z", "img"], "unknown option -z"),
        (["--mode", "three", "img"], "--mode is one of one, two"),
        (["--tty=yes", "img"], "--tty takes no value"),
        (["-e"], "--env needs a value"),
        (["-o", "xml", "img"], "--output is one of"),
    ],
)
def test_a_wrong_line_is_refused_by_name(words, says):
    with pytest.raises(Usage, match=says):
        asked(words)


def test_an_unknown_option_suggests_the_nearest():
    with pytest.raises(Usage) as caught:
        asked(["--evn", "x", "img"])
    assert "`--env`" in caught.value.hint


def test_too_many_arguments_are_refused():
    with pytest.raises(Usage, match="too many"):
        asked(["a"], Verb("None.", lambda a, s: 0, examples=("volt n",)))


def test_a_missing_argument_is_no_matter_when_help_is_asked():
    assert asked(["--help"]).flag("--help")


def test_options_before_the_noun_are_counted():
    found = Asked()
    words = ["-o", "json", "--host=/x", "ps", "-q"]
    assert parse_globals(words, found) == 3
    assert found.text("--host") == "/x"


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("0", 0),
        ("4096", 4096),
        ("1k", 1024),
        ("512M", 512 << 20),
        ("1G", 1 << 30),
        ("1.5GiB", 3 << 29),
        ("2TB", 2 << 40),
    ],
)
def test_sizes(text, size):
    assert parse_size("--memory", text) == size


@pytest.mark.parametrize("text", ["", "M", "-1", "1X", "lots", "nan", "inf", "1e99", "0x10"])
def test_no_sizes(text):
    with pytest.raises(Usage):
        parse_size("--memory", text)


@pytest.mark.parametrize(
    ("text", "seconds"), [("0", 0), ("30", 30), ("1.5s", 1.5), ("250ms", 0.25), ("2m", 120), ("1h", 3600)]
)
def test_times(text, seconds):
    assert parse_seconds("--timeout", text) == seconds


@pytest.mark.parametrize("text", ["", "-1", "soon", "1y", "nan", "inf"])
def test_no_times(text):
    with pytest.raises(Usage):
        parse_seconds("--timeout", text)


@pytest.mark.parametrize("text", ["-1", "1.5", "x", "", "²"])
def test_no_numbers(text):
    found = Asked()
    found.add("--cpu", text)
    with pytest.raises(Usage):
        found.number("--cpu")


def test_the_environment_gives_what_the_line_does_not():
    settings = gather(Asked(), {"VOLT_OUTPUT": "yaml", "VOLT_HOST": "/h", "VOLT_DEBUG": "true", "VOLT_COLOR": "always"})
    assert (settings.output, settings.host, settings.debug, settings.color) == ("yaml", "/h", True, True)


def test_the_line_comes_before_the_environment():
    found = Asked()
    found.add("--output", "json")
    found.add("--host", "/line")
    settings = gather(found, {"VOLT_OUTPUT": "yaml", "VOLT_HOST": "/env"})
    assert (settings.output, settings.host) == ("json", "/line")


def test_no_color_is_honoured_and_can_be_overruled():
    assert not gather(Asked(), {"NO_COLOR": "1", "VOLT_COLOR": "always"}).color
    found = Asked()
    found.add("--color", "always")
    assert gather(found, {"NO_COLOR": "1"}).color


def test_a_wrong_variable_is_named():
    with pytest.raises(Usage, match="VOLT_OUTPUT"):
        gather(Asked(), {"VOLT_OUTPUT": "xml"})


def test_another_context_is_not_found():
    with pytest.raises(NotFound):
        gather(Asked(), {"VOLT_CONTEXT": "elsewhere"})
