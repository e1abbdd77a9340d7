"""docs/protocol.md says what the contracts say, and so does each daemon of itself."""

import pathlib

import pytest

from volt_common import describe
from volt_common.errors import BY_CODE, NotFound

PAGE = pathlib.Path(describe.__file__).parents[2] / "docs" / "protocol.md"


@pytest.mark.skipif(not PAGE.parent.is_dir(), reason="volt_common is not in a checkout")
def test_the_page_is_up_to_date():
    again = "PYTHONPATH=common python -m volt_common.describe > docs/protocol.md"
    assert PAGE.read_text() == describe.protocol(), f"write it anew: {again}"


@pytest.mark.parametrize("daemon", describe.DAEMONS)
def test_every_call_is_there_with_all_its_fields(daemon):
    text = describe.describe_daemon(daemon)
    for call in describe.calls(describe.DAEMONS[daemon]):
        part = text.split(f"#### `{call.__struct_config__.tag}`\n", 1)[1].split("\n### ", 1)[0].split("\n#### ")[0]
        for field in call.__struct_fields__:
            assert f"| `{field}` |" in part
        assert (", changes" in part) == call.mutates
        result, item = describe.result_and_item(call)
        assert result.__name__ in part or "DONE empty" in part
        assert item is None or f"ITEM `{item.__name__}`" in part


@pytest.mark.parametrize("daemon", describe.DAEMONS)
def test_every_call_has_words_of_its_own(daemon):
    for call in describe.calls(describe.DAEMONS[daemon]):
        assert vars(call).get("__doc__"), call


def test_every_error_is_there_with_its_exit_status():
    page = describe.protocol()
    for code, kind in BY_CODE.items():
        assert f"| `{code}` | {kind.exit} | " in page


def test_a_daemon_is_known_by_its_name_and_its_tag():
    assert describe.describe_daemon("cas") == describe.describe_daemon("casd")
    with pytest.raises(NotFound):
        describe.describe_daemon("vmd")


def test_no_type_is_left_as_python_writes_it():
    page = describe.protocol()
    for word in ("Annotated", "typing.", "Meta(", "NoneType", "<class", "ForwardRef"):
        assert word not in page


def test_main_prints_the_page(capsys):
    describe.main()
    assert capsys.readouterr().out == describe.protocol()
