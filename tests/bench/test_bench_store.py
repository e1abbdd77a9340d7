"""A Debian root into a store: Volt's, and others'. On the machine's disk, which is ext4 with a journal."""

from __future__ import annotations

TREE = "/root/tree"
TAR = "/root/image.tar"
ROUNDS = 10

# A store of its own for each build, served by a casd of its own: nothing is there yet, and the daemon is up.
_CASD = """
rm -rf /root/store /root/casd; mkdir -p /root/casd/state; sync -f /root
setsid /usr/lib/volt/bin/volt-casd --store /root/store --listen /root/casd --state /root/casd/state --idle 0 \
    </dev/null >/root/casd/log 2>&1 &
echo $! >/root/casd/pid
until volt --host /root/casd cas status >/dev/null 2>&1; do sleep 0.05; done
"""
_CLEAN = """
if [ -e /root/casd/pid ]; then
    read -r pid </root/casd/pid
    kill "$pid"
    while kill -0 "$pid" 2>/dev/null; do sleep 0.02; done
fi
rm -rf /root/store /root/casd /root/ostree /root/casync /root/copy
sync -f /root
"""
_OSTREE = "rm -rf /root/ostree; ostree --repo=/root/ostree init --mode=bare; sync -f /root"
_DIRECTORY = f"volt --host /root/casd cas build {TREE}"
_TAR = f"volt --host /root/casd cas build {TAR}"
_COMMIT = f"ostree --repo=/root/ostree commit -b bench -s bench --tree=dir={TREE}"
_MAKE = f"casync make --store=/root/casync/store /root/casync/index.caidx {TREE}"
_COPY = f"sh -c 'cp -a {TREE} /root/copy && sync -f /root/copy'"
_NOTE = "durable: volt, ostree, cp + sync -f; casync syncs nothing"


def test_first(bench, report):
    racers = {
        "volt cas build DIR": _DIRECTORY,
        "volt cas build TAR": _TAR,
        "ostree commit": _COMMIT,
        "casync make": _MAKE,
        "cp -a; sync -f": _COPY,
    }
    prepare = {
        "volt cas build DIR": _CASD,
        "volt cas build TAR": _CASD,
        "ostree commit": _OSTREE,
        "casync make": "mkdir -p /root/casync; sync -f /root",
    }
    found = bench.race(racers, ROUNDS, prepare, _CLEAN)
    report.race("A Debian root into an empty store", found, ["ostree commit", "cp -a; sync -f"], _NOTE)


def test_again(bench, report):
    """The same root once more: all of its content is there."""
    racers = {
        "volt cas build DIR": _DIRECTORY,
        "volt cas build TAR": _TAR,
        "ostree commit": _COMMIT,
        "casync make": _MAKE,
    }
    bench.sh(f"{_CASD}\n{_OSTREE}\nmkdir -p /root/casync")
    try:
        bench.sh(f"{_DIRECTORY}; {_COMMIT}; {_MAKE}")
        found = bench.race(racers, ROUNDS)
    finally:
        bench.sh(_CLEAN)
    report.race("The same root again", found, ["ostree commit"], _NOTE)
