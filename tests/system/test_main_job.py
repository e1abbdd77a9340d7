"""The main job: a Debian root goes into the store, containers run from it, and a person drives them."""

from __future__ import annotations

import json

IMAGE = "debian:test"


def test_run_prints_and_ends_with_the_payloads_code(clean):
    done = clean.volt("run", "--rm", IMAGE, "sh", "-c", "echo out; echo err >&2; exit 42")
    assert (done.stdout, done.returncode) == ("out\n", 42)
    assert "err\n" in done.stderr
    assert clean.volt("ps", "-a", "-o", "name").stdout == ""


def test_a_detached_container_is_shown_answers_exec_logs_and_stops(clean):
    done = clean.volt("run", "-d", "--name", "web", IMAGE, "sh", "-c", "echo started; exec sleep 1000")
    assert done.returncode == 0, done.stderr
    row = json.loads(clean.volt("ps", "-o", "json").stdout)
    assert [(one["name"], one["state"]) for one in row] == [("web", "running")]
    done = clean.volt("exec", "web", "sh", "-c", "cat /etc/debian_version; exit 7")
    assert done.returncode == 7
    assert done.stdout.strip()
    clean.wait("volt logs web | grep -q started")
    assert clean.volt("stop", "web").returncode == 0
    assert json.loads(clean.volt("inspect", "web", "-o", "json").stdout)["state"] == "stopped"
    assert clean.volt("start", "web").returncode == 0
    assert clean.volt("rm", "--force", "web").returncode == 0
    assert clean.volt("inspect", "web").returncode == 3


def test_hybrid_native_boots_the_images_own_systemd(clean):
    done = clean.volt("run", "-d", "--name", "sys", "--mode", "hybrid-native", IMAGE, timeout=90)
    assert done.returncode == 0, done.stderr
    state = clean.volt("exec", "sys", "systemctl", "is-system-running").stdout.strip()
    assert state in ("running", "degraded")
    assert clean.volt("exec", "sys", "cat", "/proc/1/comm").stdout == "systemd\n"
    assert clean.volt("stop", "sys", timeout=120).returncode == 0


def test_standard_input_reaches_run_and_exec(clean):
    done = clean.volt("run", "--rm", "-i", IMAGE, "cat", input="through run\n")
    assert done.stdout == "through run\n", done.stderr
    clean.volt("run", "-d", "--name", "web", IMAGE, "sleep", "1000")
    done = clean.volt("exec", "-i", "web", "tr", "a-z", "A-Z", input="through exec\n")
    assert done.stdout == "THROUGH EXEC\n", done.stderr


def test_a_hundred_megabytes_through_exec_arrive_whole(clean):
    clean.volt("run", "-d", "--name", "web", IMAGE, "sleep", "1000")
    script = "volt exec web head -c 100000000 /dev/zero | sha256sum; head -c 100000000 /dev/zero | sha256sum"
    first, second = clean.sh(script, timeout=120).splitlines()
    assert first == second


def test_what_a_container_writes_stays_over_a_restart_and_goes_with_it(clean):
    clean.volt("run", "-d", "--name", "web", IMAGE, "sleep", "1000")
    clean.volt("exec", "web", "sh", "-c", "echo kept > /root/file")
    assert clean.volt("restart", "web", timeout=120).returncode == 0
    assert clean.volt("exec", "web", "cat", "/root/file").stdout == "kept\n"
    clean.volt("rm", "--force", "web")
    clean.volt("run", "-d", "--name", "web", IMAGE, "sleep", "1000")
    assert clean.volt("exec", "web", "cat", "/root/file").returncode == 1


def test_a_payload_may_open_its_own_streams(clean):
    done = clean.volt("run", "--rm", IMAGE, "sh", "-c", "echo a > /dev/stdout; echo b > /dev/stderr")
    assert done.stdout == "a\n"
    assert "b\n" in done.stderr
    clean.volt("run", "-d", "--name", "web", IMAGE, "sh", "-c", "echo logged > /dev/stdout; sleep 1000")
    clean.wait("volt logs web | grep -q logged")


def test_environment_user_workdir_and_hostname(clean):
    words = ["-e", "A=b c", "--user", "nobody", "--workdir", "/usr", "--hostname", "box"]
    done = clean.volt(
        "run", "--rm", *words, IMAGE, "sh", "-c", 'echo "$A|$(id -un)|$(pwd)|$(cat /proc/sys/kernel/hostname)"'
    )
    assert done.stdout == "b c|nobody|/usr|box\n", done.stderr


def test_restarting_or_killing_ctrd_changes_nothing_for_a_container(clean):
    clean.volt("run", "-d", "--name", "web", IMAGE, "sleep", "1000")
    leader = json.loads(clean.volt("inspect", "web", "-o", "json").stdout)["leader"]
    for command in ("systemctl restart volt-ctrd", "systemctl kill -s KILL volt-ctrd", "systemctl restart volt-casd"):
        clean.sh(command)
        one = json.loads(clean.volt("inspect", "web", "-o", "json").stdout)
        assert (one["state"], one["leader"]) == ("running", leader)
    assert clean.volt("exec", "web", "true").returncode == 0


def test_ps_works_for_any_user_without_a_daemon(clean):
    clean.volt("run", "-d", "--name", "web", IMAGE, "sleep", "1000")
    clean.sh("systemctl stop volt-ctrd.socket volt-ctrd-fd.socket volt-ctrd-handover.socket volt-ctrd volt-casd")
    try:
        done = clean.volt("ps", user="outsider")
        assert "web" in done.stdout, done.stderr
    finally:
        clean.sh("systemctl start volt-ctrd.socket volt-ctrd-fd.socket volt-ctrd-handover.socket")


def test_a_signal_is_the_exit_code_plus_128_and_the_reason_is_kept(clean):
    done = clean.volt("run", "--name", "web", IMAGE, "sh", "-c", "kill -KILL $$")
    assert done.returncode == 137
    one = json.loads(clean.volt("inspect", "web", "-o", "json").stdout)
    assert one["exit"]["code"] == 137


def test_a_command_that_is_not_there_is_127_and_one_that_cannot_run_126(clean):
    for command, code in (("no-such-command", 127), ("/etc/passwd", 126)):
        done = clean.volt("run", "--rm", IMAGE, command)
        assert (done.returncode, len(done.stderr.splitlines())) == (code, 1), done.stderr
        clean.volt("run", "-d", "--name", "web", IMAGE, "sleep", "1000")
        assert clean.volt("exec", "web", command).returncode == code
        clean.volt("rm", "--force", "web")


def test_wait_and_events(clean):
    clean.volt("run", "-d", "--name", "web", IMAGE, "sh", "-c", "sleep 1; exit 5")
    assert clean.volt("wait", "web").stdout.strip() == "5"


def test_explain_shows_what_confines_it(clean):
    clean.volt("run", "-d", "--name", "web", IMAGE, "sleep", "1000")
    text = clean.volt("explain", "web").stdout
    assert "volt-container@web.service" in text
    assert "systemd-nspawn" in text
    assert "--private-users=" in text


def test_the_store_is_whole_afterwards(clean):
    assert clean.volt("cas", "verify", timeout=120).returncode == 0


def test_no_daemon_is_root_and_a_container_needs_none(clean):
    clean.volt("run", "-d", "--name", "web", IMAGE, "sleep", "1000")
    clean.volt("cas", "status")
    for daemon, user in (("casd", "volt-cas"), ("ctrd", "volt-ctr")):
        pid = clean.sh(f"systemctl show -P MainPID volt-{daemon}").strip()
        ids = clean.sh(f"grep -E '^(Uid|CapEff|NoNewPrivs|Seccomp):' /proc/{pid}/status").split()
        assert clean.sh(f"id -u {user}").strip() == ids[1] != "0"
    clean.sh("systemctl stop volt-casd volt-ctrd")
    assert clean.volt("exec", "web", "true").returncode == 0
