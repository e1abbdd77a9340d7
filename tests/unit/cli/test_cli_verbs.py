"""What single verbs make of their input, where no daemon is needed to tell."""

import json
import os

import pytest

from volt.audit.records import logs, records
from volt.completion.live import candidates
from volt.container.logs import journalctl, line
from volt.container.spec import spec_of
from volt.containers import row, seconds_of, status_text
from volt.host.checks import CHECKS, MISSING, OK, WARN, version
from volt.host.doctor import line as doctor_line
from volt.host.kvm import probe
from volt.host.top import Sample, rates
from volt.image.build import mmdebstrap
from volt.main import find, main
from volt.options import Asked
from volt.progress import bar
from volt.security.status import daemon, shown
from volt.settings import Settings
from volt_common.api import ctr
from volt_common.errors import Denied, Invalid, NotFound, Usage


def asked(*words):
    found = Asked()
    find(list(words), found)
    return found


def test_run_asks_for_what_it_was_told(tmp_path, monkeypatch):
    monkeypatch.setenv("TOKEN", "secret")
    monkeypatch.delenv("ABSENT", raising=False)
    (tmp_path / "env").write_text("# comment\n\nFROM=file\nA=file\n")
    spec = spec_of(
        asked(
            *("run", "--rm", "-it", "-e", "A=1", "-e", "TOKEN", "-e", "ABSENT", "--env-file", str(tmp_path / "env")),
            *("-v", f"{tmp_path}:/data:ro", "--tmpfs", "/tmp", "-m", "512M", "--cpu", "150", "--pids", "64"),
            *("-u", "www:www", "-w", "/srv", "--entrypoint", "", "--cap-add", "net_admin", "--mode", "hybrid-native"),
            *("--network", "host", "--hostname", "h", "--read-only", "--layer", "tmpfs", "--label", "a=b"),
            *("--stop-signal", "sigint", "--stop-time", "1m", "debian:12", "--", "ls", "-l"),
        )
    )
    assert spec == ctr.Spec(
        image="debian:12",
        mode=ctr.Mode.HYBRID_NATIVE,
        args=["ls", "-l"],
        entrypoint=[],
        env={"FROM": "file", "A": "1", "TOKEN": "secret"},
        user="www:www",
        workdir="/srv",
        hostname="h",
        tty=True,
        interactive=True,
        read_only=True,
        layer=ctr.Layer.TMPFS,
        network=ctr.Network.HOST,
        binds=[ctr.Bind(source=str(tmp_path), target="/data", read_only=True)],
        tmpfs=["/tmp"],
        capabilities=["CAP_NET_ADMIN"],
        resources=ctr.Resources(memory_max=512 << 20, cpu_percent=150, pids_max=64),
        stop_signal="SIGINT",
        stop_seconds=60,
        remove=True,
        labels={"a": "b"},
    )


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["-v", "nothing"], Usage),
        (["-v", "volume:/x"], Usage),
        (["-v", "/a:/b:rx"], Usage),
        (["-v", "/no/such/place:/b"], NotFound),
        (["-e", "=x"], Usage),
        (["--label", "x"], Usage),
        (["--cpu", "many"], Usage),
        (["--memory", "big"], Usage),
        (["--env-file", "/dev/full/x"], OSError),
    ],
)
def test_what_run_can_t_read_is_refused(words, error):
    with pytest.raises(error):
        spec_of(asked("run", *words, "img"))


def test_a_broken_env_file_names_its_line(tmp_path):
    (tmp_path / "env").write_text("A=1\nnonsense\n")
    with pytest.raises(Invalid, match="line 2"):
        spec_of(asked("run", "--env-file", str(tmp_path / "env"), "img"))


def test_a_dry_run_shows_what_would_be_sent(capsys, tmp_path):
    assert main(["--host", str(tmp_path), "run", "--dry-run", "-o", "json", "--name", "web", "img", "ls"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["name"] == "web"
    assert told["spec"]["args"] == ["ls"]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2000-02-29T12:30:05.123Z", 951827405),
        ("2026-11-24T15:00:00.000Z", 1795532400),
        ("", 0),
        ("nonsense, not a time at all", 0),
        (None, 0),
    ],
)
def test_times_are_read_without_a_library(text, seconds):
    assert seconds_of(text) == seconds


NOW = seconds_of("2026-01-31T10:05:00Z")
ENDED = "2026-01-31T10:00:00.000Z"


@pytest.mark.parametrize(
    ("active", "state", "status"),
    [
        ("running", {"started_at": "2026-01-31T10:00:00.000Z"}, "up 5m"),
        ("running", {}, ""),
        ("", {}, "never started"),
        ("", {"ended_at": ENDED, "exit": {"code": 0, "signal": 0, "reason": "exit"}}, "exit 0, 5m ago"),
        ("", {"ended_at": ENDED, "exit": {"code": 137, "signal": 9, "reason": "signal"}}, "SIGKILL, 5m ago"),
        ("", {"ended_at": ENDED, "exit": {"code": 137, "signal": 9, "reason": "oom"}}, "out of memory, 5m ago"),
        ("", {"ended_at": None, "exit": {"code": 1, "reason": "start-failure"}}, "could not start"),
        ("", {"exit": {"code": 3, "signal": "x"}}, "signal x"),
    ],
)
def test_status_in_words(active, state, status):
    assert status_text(row("web", active, state), NOW) == status


def test_logs_reads_the_unit_s_own_lines():
    command = journalctl("web", asked("logs", "-f", "--tail", "5", "--since", "10m", "web"), Settings())
    assert "_SYSTEMD_UNIT=volt-container@web.service" in command
    assert command[-1] == "--follow"
    assert command[command.index("--lines") + 1] == "5"
    assert command[command.index("--since") + 1] == "-10m"
    assert command[command.index("--output") + 1] == "cat"


@pytest.mark.parametrize("name", ["../x", "a b", "web.service", "-f;", ""])
def test_logs_of_a_name_that_is_none(name):
    with pytest.raises(NotFound):
        journalctl(name, asked("logs", "web"), Settings())


def test_a_log_line_with_its_time_or_as_json():
    entry = {"__REALTIME_TIMESTAMP": "1769853600123456", "MESSAGE": "hello"}
    assert line(entry, json_form=False) == "2026-01-31T10:00:00.123Z hello"
    assert json.loads(line(entry, json_form=True)) == {"time": "2026-01-31T10:00:00.123Z", "message": "hello"}
    assert "\n" not in line(entry, json_form=True)
    assert line({**entry, "MESSAGE": [104, 255]}, json_form=False).endswith(" h\ufffd")
    assert line({**entry, "MESSAGE": None}, json_form=False).endswith("Z ")


def group(place, **files):
    place.mkdir(exist_ok=True)
    for name, text in files.items():
        (place / name.replace("_", ".", 1)).write_text(text)
    return str(place)


def test_top_reads_cgroup_files(tmp_path):
    files = {"memory_current": "4096\n", "memory_max": "max\n", "pids_current": "3\n"}
    first = Sample(
        group(tmp_path / "g", cpu_stat="usage_usec 1000000\n", io_stat="8:0 rbytes=10 wbytes=0\n", **files), 10.0
    )
    io = "8:0 rbytes=1010 wbytes=50 rios=1\n8:16 rbytes=1000 wbytes=50\n"
    then = Sample(group(tmp_path / "g", cpu_stat="usage_usec 4000000\nuser_usec 1\n", io_stat=io, **files), 12.0)
    assert rates({"web": ("running", first)}, {"web": ("running", then)}) == [
        {
            "name": "web",
            "cpu_percent": 150.0,
            "memory": 4096,
            "memory_max": None,
            "read_rate": 1000.0,
            "write_rate": 50.0,
            "pids": 3,
            "state": "running",
        }
    ]


def test_top_says_nothing_of_controllers_that_are_off(tmp_path):
    sample = Sample(group(tmp_path / "g", cgroup_procs="1\n2\n"), 1.0)
    [found] = rates({}, {"web": ("running", sample)})
    assert (found["cpu_percent"], found["memory"], found["read_rate"], found["pids"]) == (None, None, None, 2)


def test_doctor_has_an_answer_and_an_advice_for_everything():
    for check in CHECKS:
        found = check()
        assert found.state in (OK, WARN, MISSING)
        assert found.name
        assert found.detail
        assert bool(found.advice) == (found.state != OK), found
        assert found.name in doctor_line(found, Settings())


def test_doctor_names_what_is_missing_and_is_exit_10_then(capsys):
    code = main(["doctor", "-o", "json"])
    out, err = capsys.readouterr()
    rows = json.loads(out)
    lacking = [row["name"] for row in rows if row["state"] == "missing"]
    assert code == (10 if lacking else 0)
    assert all(name in err for name in lacking)


def test_a_kvm_that_is_not_there_is_told(tmp_path):
    assert "no /dev/kvm" in probe(str(tmp_path / "kvm"))
    (tmp_path / "file").touch()
    assert probe(str(tmp_path / "file")) != ""


@pytest.mark.parametrize(("release", "numbers"), [("6.12.9-amd64", (6, 12)), ("5.19", (5, 19)), ("odd", (0, 0))])
def test_kernel_versions(release, numbers):
    assert version(release) == numbers


def test_build_runs_mmdebstrap_into_a_tar():
    command = mmdebstrap(asked("image", "build", "deb", "--suite", "trixie", "--include", "a,b", "--include", "c"))
    assert command == ["mmdebstrap", "--format=tar", "--variant=minbase", "--include=a,b,c", "--", "trixie", "-"]


def test_the_bar_fits_its_line():
    assert bar("importing x", 512, 1024, "", 200) == "importing x [============            ]  50% 512 of 1.0K"
    assert len(bar("importing x", 1, 2, "y" * 500, 79)) == 79
    assert bar("x", 2048, 0, "3 files", 79) == "x 2.0K 3 files"
    assert bar("x", 2048, 0, "", 79, lambda count: f"{count} objects") == "x 2048 objects"


COMPLETIONS = [
    ([""], {"run", "ps", "container", "image"}),
    (["cont"], {"container"}),
    (["container", "st"], {"start", "stop"}),
    (["-o", ""], {"table", "wide", "json", "yaml", "name"}),
    (["-o", "json", "container", "pa"], {"pause"}),
    (["run", "--mode", ""], {"container", "hybrid-native"}),
    (["run", "--mode", "h"], {"hybrid-native"}),
    (["run", "img", "ls", ""], {":files"}),
    (["image", "import", "name", ""], {":files"}),
    (["completion", ""], {"bash", "zsh", "fish"}),
    (["nonsense", ""], set()),
    (["version", "x"], set()),
]


@pytest.mark.parametrize(("words", "expected"), COMPLETIONS)
def test_completion_knows_what_can_follow(words, expected, tmp_path):
    settings = Settings()
    settings.host = str(tmp_path)
    found = {text.split("\t")[0] for text in candidates(words, settings)}
    assert expected <= found
    if len(expected) < 3:
        assert found == expected


def test_completion_offers_options_with_their_help(tmp_path):
    settings = Settings()
    settings.host = str(tmp_path)
    assert "--follow\tgo on with what is written from now on" in candidates(["logs", "--f"], settings)


def test_completion_is_silent_when_nothing_answers(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("DBUS_SYSTEM_BUS_ADDRESS", f"unix:path={tmp_path}/none")
    assert main(["__complete", "--host", "/x", "stop", "w"]) == 0
    assert capsys.readouterr() == ("", "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_ask_the_command(shell, capsys):
    assert main(["completion", shell]) == 0
    assert "volt __complete" in capsys.readouterr().out


def test_audit_lines_are_merged_and_torn_ones_left_to_verify(tmp_path):
    (tmp_path / "ctrd.log").write_text('{"timestamp":"2","action":"container.create","previous":"0"}\n{"timest')
    (tmp_path / "casd.log").write_text('{"timestamp":"1","action":"cas.put"}\n')
    (tmp_path / "other.txt").write_text("no")
    found = [row for path in logs(str(tmp_path)) for row in records(path)]
    assert [(row["daemon"], row["action"]) for row in found] == [("casd", "cas.put"), ("ctrd", "container.create")]
    assert all("previous" not in row for row in found)


def test_no_audit_logs_is_not_found(tmp_path):
    with pytest.raises(NotFound):
        logs(str(tmp_path / "none"))


@pytest.mark.skipif(os.geteuid() != 0, reason="drops root's rights")
def test_unreadable_audit_logs_are_denied(tmp_path):
    (tmp_path / "audit").mkdir(mode=0o700)
    os.chmod(tmp_path, 0o711)
    child = os.fork()
    if child == 0:
        try:
            os.chdir("/")
            os.setresuid(65534, 65534, 65534)
            logs(str(tmp_path / "audit"))
        except Denied:
            os._exit(5)
        except BaseException:
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 5


def test_security_status_reads_units_and_processes():
    text = "Id=volt-casd.service\nActiveState=inactive\nMainPID=0\nUser=volt-cas\nNoNewPrivileges=yes\n"
    text += "ProtectSystem=strict\nCapabilityBoundingSet=cap_lease\n\nId=volt-ctrd.service\nActiveState=active\n"
    text += f"MainPID={os.getpid()}\nUser=volt-ctr\nCapabilityBoundingSet=\n"
    rows = [daemon(properties) for properties in shown(text)]
    assert [(row["name"], row["state"], row["user"]) for row in rows] == [
        ("volt-casd", "idle", "volt-cas"),
        ("volt-ctrd", "running", "volt-ctr"),
    ]
    assert rows[0]["capabilities"] == "CAP_LEASE"
    assert rows[1]["capabilities"] == "none"
    assert rows[0]["no_new_privileges"] is True
    assert rows[0]["seccomp"] == "when it runs"
