"""The audit log says what happened, in a chain that shows a changed, lost or torn line."""

import errno
import hashlib
import json
import logging
import os
import re
import resource
import signal
import stat

import pytest

from volt_common.audit import FIRST, Audit, check
from volt_common.errors import Corrupt


@pytest.fixture
def path(tmp_path):
    return tmp_path / "casd.log"


def write(audit, name="web", result="success", **detail):
    audit.write(0, 42, "container.create", name, result, bytes(range(16)), detail)


def written(path, count=3):
    audit = Audit(path, "casd")
    for number in range(count):
        write(audit, f"web-{number}")
    audit.close()
    return path.read_bytes()


def test_a_line_has_exactly_the_fields_that_were_agreed(path):
    audit = Audit(path, "casd")
    write(audit, result="denied", why="not a member")
    line = json.loads(path.read_text())
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", line.pop("timestamp"))
    assert line == {
        "user": "root",
        "uid": 0,
        "pid": 42,
        "action": "container.create",
        "resource": "web",
        "result": "denied",
        "id": "000102030405060708090a0b0c0d0e0f",
        "detail": {"why": "not a member"},
        "previous": FIRST,
    }


def test_each_line_carries_the_hash_of_the_one_before(path):
    first, second, third = written(path).splitlines()
    assert json.loads(second)["previous"] == hashlib.sha256(first).hexdigest()
    assert json.loads(third)["previous"] == hashlib.sha256(second).hexdigest()
    assert check(path).lines == 3


def test_the_file_is_readable_by_its_group_whatever_the_umask(path):
    before = os.umask(0o077)
    try:
        Audit(path, "casd")
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o640


def test_a_file_that_is_there_keeps_its_mode(path):
    path.touch(0o600)
    Audit(path, "casd")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_symlink_is_not_followed(path, tmp_path):
    (tmp_path / "elsewhere").touch()
    path.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError):
        Audit(path, "casd")


def test_a_uid_without_a_name_has_an_empty_one(path):
    Audit(path, "casd").write(3999999999, 1, "cas.put", "x", "success", bytes(16), {})
    assert json.loads(path.read_text())["user"] == ""


def test_the_chain_goes_on_after_a_restart(path):
    written(path)
    written(path)
    assert check(path).lines == 6


@pytest.mark.parametrize("text", ["a\nb", "\0", 'a"b', "\udcff", "é\u2028", "x" * 100000])
def test_no_text_breaks_a_line(path, text):
    audit = Audit(path, "casd")
    audit.write(0, 1, "cas.put", text, "success", bytes(16), {text: text})
    assert path.read_bytes().count(b"\n") == 1
    assert len(path.read_bytes()) < 100000
    assert check(path).lines == 1


@pytest.mark.parametrize("change", ["edit", "drop", "swap", "insert", "garble", "retell"])
def test_check_names_the_line_that_was_tampered_with(path, change):
    lines = written(path, 6).splitlines(keepends=True)
    if change == "edit":
        lines[2] = lines[2].replace(b"web-2", b"web-9")
    elif change == "drop":
        del lines[2]
    elif change == "swap":
        lines[2], lines[3] = lines[3], lines[2]
    elif change == "insert":
        lines.insert(2, lines[1])
    elif change == "garble":
        lines[3] = b"not json\n"
    elif change == "retell":
        lines[3] = lines[3].replace(b'"uid":0', b'"uid":"0"')
    path.write_bytes(b"".join(lines))
    wanted = {"edit": 4, "drop": 3, "swap": 3, "insert": 3, "garble": 4, "retell": 4}[change]
    with pytest.raises(Corrupt, match=f"line {wanted} "):
        check(path)


def test_each_line_is_also_told_to_the_journal_with_its_hash(path):
    records = []
    journal = logging.Handler()
    journal.emit = records.append
    log = logging.getLogger("volt.audit")
    log.addHandler(journal)
    log.setLevel(logging.INFO)
    try:
        write(Audit(path, "casd"), result="NOT_FOUND")
    finally:
        log.removeHandler(journal)
        log.setLevel(logging.NOTSET)
    [record] = records
    assert record.volt["VOLT_AUDIT"] == hashlib.sha256(path.read_bytes().rstrip(b"\n")).hexdigest()
    assert record.volt["VOLT_REQUEST"] == bytes(range(16)).hex()
    assert record.getMessage() == "container.create web by uid 0: NOT_FOUND"


def test_a_torn_last_line_is_marked_and_the_chain_goes_on(path):
    whole = written(path)
    for keep in (1, 20, len(whole.splitlines()[-1]) - 1):
        lines = whole.splitlines(keepends=True)
        path.write_bytes(b"".join(lines[:2]) + lines[2][:keep])
        assert (check(path).lines, check(path).torn) == (2, 1)
        written(path, 2)
        found = [json.loads(line) for line in path.read_bytes().splitlines()[3:]]
        assert [line["action"] for line in found] == ["audit.torn", "container.create", "container.create"]
        assert (check(path).lines, check(path).torn) == (5, 1)


def test_a_line_that_lacks_only_its_newline_is_whole(path):
    path.write_bytes(written(path).rstrip(b"\n"))
    assert check(path).lines == 3
    written(path, 1)
    assert (check(path).lines, check(path).torn) == (4, 0)


def test_a_mark_that_is_torn_itself_is_marked(path):
    lines = written(path).splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2]) + lines[2][:30])
    Audit(path, "casd").close()
    marked = path.read_bytes()
    for cut in range(len(marked) - 1, len(b"".join(lines[:2])) + 30, -7):
        path.write_bytes(marked[:cut])
        written(path, 1)
        assert check(path).torn == 1


def test_a_file_with_nothing_but_a_torn_line_starts_a_chain(path):
    path.write_bytes(b'{"timest')
    written(path, 1)
    assert (check(path).lines, check(path).torn) == (2, 1)


def test_a_torn_line_longer_than_a_block_is_found(path):
    path.write_bytes(written(path) + b"x" * 300000)
    written(path, 1)
    assert (check(path).lines, check(path).torn) == (5, 1)


def test_a_mark_excuses_only_the_bytes_it_names(path):
    lines = written(path).splitlines(keepends=True)
    path.write_bytes(b"".join(lines[:2]) + lines[2][:30])
    written(path, 1)
    path.write_bytes(path.read_bytes().replace(lines[2][:30] + b"\n", b"something else\n"))
    with pytest.raises(Corrupt, match="line 3 "):
        check(path)


def test_a_rotated_file_is_continued_by_the_new_one(path, tmp_path):
    audit = Audit(path, "casd")
    write(audit)
    path.rename(tmp_path / "casd.log.1")
    write(audit)
    audit.reopen()
    write(audit)
    old, new = check(tmp_path / "casd.log.1"), check(path)
    assert (old.lines, new.lines) == (2, 1)
    assert new.first == old.last


def test_a_reopen_that_fails_stays_with_the_old_file(path, tmp_path):
    audit = Audit(path, "casd")
    path.rename(tmp_path / "casd.log.1")
    path.symlink_to("nowhere")
    with pytest.raises(OSError):
        audit.reopen()
    write(audit)
    assert check(tmp_path / "casd.log.1").lines == 1


def test_a_full_disk_leaves_a_torn_line_that_the_next_write_marks(path):
    audit = Audit(path, "casd")
    write(audit)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 40, hard))
        with pytest.raises(OSError) as error:
            write(audit)
        assert error.value.errno == errno.EFBIG
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)
    write(audit)
    assert (check(path).lines, check(path).torn) == (3, 1)


def test_an_empty_file_is_a_chain(path):
    path.touch()
    assert check(path).lines == 0
