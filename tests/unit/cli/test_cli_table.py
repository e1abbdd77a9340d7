"""Every verb of the table is there, explains itself, and understands its own examples."""

import re
import shlex

import pytest

from volt.main import HIDDEN, NOUNS, find, load, main
from volt.options import Asked

COMMANDS = [(noun, verb, module) for noun, verbs in NOUNS.items() for verb, module in verbs.items()]
IDS = [f"{noun} {verb}".strip() for noun, verb, _ in COMMANDS]


@pytest.mark.parametrize(("noun", "verb", "module"), COMMANDS, ids=IDS)
def test_help_of_every_verb_shows_its_examples(noun, verb, module, capsys):
    assert main([*([noun] if noun else []), verb, "--help"]) == 0
    out = capsys.readouterr().out
    found = load(module)
    assert found.about in out
    assert found.examples
    for example in found.examples:
        assert example in out
    for option in found.options:
        assert option.help.split()[0] in out


@pytest.mark.parametrize(("noun", "verb", "module"), COMMANDS, ids=IDS)
def test_every_example_parses(noun, verb, module):
    for example in load(module).examples:
        plain = re.split(r" [|>] ", example.split("#")[0])
        text = next(part for part in plain if part.strip().startswith("volt "))
        words = shlex.split(text)
        assert words[0] == "volt"
        assert find(words[1:], Asked()) is not None


@pytest.mark.parametrize("noun", [noun for noun in NOUNS if noun])
def test_help_of_a_noun_lists_its_verbs(noun, capsys):
    assert main([noun, "--help"]) == 0
    out = capsys.readouterr().out
    for verb in NOUNS[noun]:
        assert f"  {verb} " in out


def test_help_of_all_names_every_noun(capsys):
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    for noun in NOUNS:
        assert noun in out
    assert not any(word in out for word in HIDDEN)


def test_help_is_also_a_word(capsys):
    assert main(["help", "container", "stop"]) == 0
    assert "volt stop web" in capsys.readouterr().out


def test_the_hidden_verb_loads():
    assert load(HIDDEN["__complete"]).about


def test_no_two_options_of_a_verb_share_a_name():
    from volt.options import GLOBAL

    for _, _, module in COMMANDS:
        names = [name for option in (*load(module).options, *GLOBAL) for name in option.names]
        assert len(names) == len(set(names)), module
