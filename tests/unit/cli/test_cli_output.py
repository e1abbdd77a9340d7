"""Tables, JSON, YAML, names and texts of the same rows."""

import json

import pytest

from volt import yaml
from volt.options import Asked
from volt.output import Column, formatted, one, plain, select, show, size_text, span_text
from volt.settings import Settings
from volt_common.errors import Usage

ROWS = [
    {"name": "web", "state": "running", "memory": 2048, "labels": {"tier": "front"}, "exit": None},
    {"name": "db", "state": "stopped", "memory": None, "labels": {}, "exit": {"code": 1}},
]
COLUMNS = (Column("name"), Column("state"), Column("memory", right=True, form=size_text), Column("labels", wide=True))


def printed(capsys, output="table", asked=None, **values):
    settings = Settings()
    settings.output = output
    for key, value in values.items():
        setattr(settings, key, value)
    show(settings, COLUMNS, ROWS, asked)
    return capsys.readouterr().out


def asking(**values):
    asked = Asked()
    for key, value in values.items():
        for text in value if isinstance(value, list) else [value]:
            asked.add(f"--{key}", text)
    return asked


def test_a_table_has_titles_and_no_trailing_spaces(capsys):
    assert printed(capsys) == "NAME  STATE    MEMORY\nweb   running    2.0K\ndb    stopped\n"


def test_titles_can_be_left_out(capsys):
    assert printed(capsys, header=False).startswith("web")


def test_wide_shows_more(capsys):
    assert "tier=front" in printed(capsys, "wide")
    assert "tier=front" not in printed(capsys)


def test_names_only(capsys):
    assert printed(capsys, "name") == "web\ndb\n"
    assert printed(capsys, quiet=True) == "web\ndb\n"


def test_json_is_the_whole_row(capsys):
    assert json.loads(printed(capsys, "json")) == ROWS


def test_colour_only_when_asked(capsys):
    assert "\x1b" not in printed(capsys)
    assert "\x1b[32mrunning" in printed(capsys, color=True)


def test_filter_sort_and_format(capsys):
    assert printed(capsys, "name", asking(filter="state=running")) == "web\n"
    assert printed(capsys, "name", asking(filter="state!=running")) == "db\n"
    assert printed(capsys, "name", asking(filter=["labels.tier=front", "state=running"])) == "web\n"
    assert printed(capsys, "name", asking(sort="name")) == "db\nweb\n"
    assert printed(capsys, "name", asking(sort="-name")) == "web\ndb\n"
    assert printed(capsys, asked=asking(format="{name}\\t{state}")) == "web\trunning\ndb\tstopped\n"


def test_what_has_no_value_sorts_last():
    assert [row["name"] for row in select(ROWS, [], "memory")] == ["web", "db"]


@pytest.mark.parametrize("asked", [asking(filter="nokey"), asking(filter="colour=red"), asking(sort="colour")])
def test_unknown_fields_are_refused(asked, capsys):
    with pytest.raises(Usage):
        printed(capsys, asked=asked)


@pytest.mark.parametrize("template", ["{nmae}", "{name", "{0}", "{}", "{name:d}", "{name.real}"])
def test_a_wrong_format_is_refused(template):
    with pytest.raises(Usage):
        formatted(template, ROWS[0])


def test_a_filter_on_nothing_finds_nothing(capsys):
    settings = Settings()
    show(settings, COLUMNS, [], asking(filter="state=running"))
    assert capsys.readouterr().out == "NAME  STATE  MEMORY\n"


def test_hostile_values_are_shown_not_obeyed(capsys):
    show(Settings(), (Column("name"),), [{"name": "a\x1b]0;b\x07\nc\udcff"}])
    assert capsys.readouterr().out == "NAME\na\\x1b]0;b\\x07\\nc\\xff\n"


def test_plain_leaves_ordinary_text_alone():
    assert plain("größer — 大") == "größer — 大"


def test_one_thing(capsys):
    one(Settings(), {"name": "web", "started_at": "now"})
    assert capsys.readouterr().out == "name        web\nstarted at  now\n"


@pytest.mark.parametrize(
    ("value", "text"),
    [(0, "0"), (1023, "1023"), (1024, "1.0K"), (10240, "10K"), (5 << 20, "5.0M"), (3 << 40, "3.0T"), (None, "")],
)
def test_sizes_for_people(value, text):
    assert size_text(value) == text


@pytest.mark.parametrize(("seconds", "text"), [(-5, "0s"), (45, "45s"), (90, "1m"), (7300, "2h"), (400000, "4d")])
def test_spans_for_people(seconds, text):
    assert span_text(seconds) == text


YAMLS = [
    "plain",
    "with: colon",
    "yes",
    "Null",
    "12",
    "1.5e3",
    "",
    "- dash",
    "# hash",
    "a # b",
    "tab\there",
    "line\nbreak",
    "ends with:",
    "'quoted'",
    "größe",
    "\x1b[0m",
    "=",
    "2026-01-31",
    "~",
    "trailing ",
]


def test_yaml_reads_back_as_it_was():
    reader = pytest.importorskip("yaml")
    value = [
        {
            "name": text,
            "list": [text, 1, None, True, 1.5],
            "empty": [],
            "none": {},
            "deep": {"a": {"b": [[1, 2], {"c": text}]}},
        }
        for text in YAMLS
    ]
    assert reader.safe_load(yaml.dump(value)) == value
    assert reader.safe_load(yaml.dump({text or "k": text for text in YAMLS})) == {text or "k": text for text in YAMLS}
    assert reader.safe_load(yaml.dump([])) == []
    assert reader.safe_load(yaml.dump(None)) is None


def test_yaml_of_a_list(capsys):
    out = printed(capsys, "yaml")
    assert out.startswith(
        "- name: web\n  state: running\n  memory: 2048\n  labels:\n    tier: front\n  exit: null\n- name: db\n"
    )
