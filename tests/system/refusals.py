"""What a refused command must look like, and what it must not leave behind."""

from __future__ import annotations

import re

REMAINS = """
systemctl stop volt-casd volt-ctrd 2>/dev/null
find /var/lib/volt/cas -path '*/views/*' -prune -o ! -name dirty -type f -printf '%P %s %m\\n' | sort
find /var/lib/volt/cas/tmp /var/lib/volt/cas/quarantine /var/lib/volt/containers /var/lib/volt/roots -mindepth 1 \
    -path '*/roots/.*' -prune -o -printf '%p\\n' | sort
find /run/volt /run/volt-launch -mindepth 1 ! -path '/run/volt-launch/op/*' ! -path '/run/volt-launch/.[fp]*' | sort
cut -d' ' -f5 /proc/self/mountinfo | sort
systemctl list-units --all --plain --no-legend 'volt-container*' 'volt-exec*' | sed 's/ .*//'
systemctl --failed --plain --no-legend | sed 's/ .*//'
"""


def remains(machine) -> list[str]:
    """What a command could leave: files of the store and of containers, mounts, units. The answers of ops, in
    /run/volt-launch/op, are swept later."""
    return machine.sh(REMAINS).splitlines()


def unchanged(machine, before: list[str]) -> None:
    """Nothing came, and nothing went."""
    came, went = set(remains(machine)), set(before)
    came, went = came - went, went - came
    assert (came, went) == (set(), set())


def refused(done, code: int, *says: str) -> None:
    """The exit status, nothing on stdout, and one line on stderr in which every one of `says` is found."""
    assert (done.returncode, done.stdout) == (code, ""), f"{done.returncode}\n{done.stdout}{done.stderr}"
    assert done.stderr.startswith("volt: ")
    assert done.stderr.count("\n") == 1, done.stderr
    for pattern in says:
        assert re.search(pattern, done.stderr), f"{pattern!r} is not in: {done.stderr}"
