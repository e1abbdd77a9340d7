"""From the command to the payload's exit: `/bin/true` in a Debian root, by Volt and by others."""

from __future__ import annotations

IMAGE = "debian:bench"
TREE = "/root/tree"

_NSPAWN = f"systemd-nspawn -q --register=no --keep-unit --private-network --as-pid2 --pipe -D {TREE} /bin/true"
_BUNDLE = f"""
mkdir -p /root/bundle; cd /root/bundle; rm -f config.json; runc spec
python3 - <<'END'
import json
spec = json.load(open("config.json"))
spec["root"]["path"] = "{TREE}"
spec["process"] |= {{"terminal": False, "args": ["/bin/true"]}}
json.dump(spec, open("config.json", "w"))
END
"""
_VOLT = f"volt run {IMAGE} /bin/true"
_RM = f"volt run --rm {IMAGE} /bin/true"
_PODMAN = f"podman run --rm --cgroups=disabled --network none --rootfs {TREE} /bin/true"
_FORGET = "volt ps -a -o name | xargs -r volt rm >/dev/null"


def test_true(bench, report):
    bench.sh(_BUNDLE)
    racers = {
        "volt run": _VOLT,
        "volt run --rm": _RM,
        "nspawn": _NSPAWN,
        "systemd-run nspawn": f"systemd-run -q --wait {_NSPAWN}",
        "podman run --rm": _PODMAN,
        "runc run": "runc run --bundle /root/bundle bench",
    }
    found = bench.race(racers, prepare={"volt run": _FORGET})
    bench.sh(_FORGET)
    note = (
        "nspawn, podman (crun) and runc run on a plain directory; Volt mounts a view and an overlay, makes ids, keeps\n"
        "the exit and answers a second command. podman needs --cgroups=disabled here: the machine has no controllers."
    )
    report.race("/bin/true, from the command to its exit; daemons warm", found, ["nspawn", "podman run --rm"], note)


def test_cold(bench, report):
    """The daemons have exited on idle: the first call starts both."""
    stopped = "systemctl stop volt-ctrd.service volt-casd.service"
    racers = {"volt run --rm, cold": _RM, "volt run --rm, warm": _RM, "volt cas status, cold": "volt cas status"}
    prepare = {
        "volt run --rm, cold": stopped,
        "volt cas status, cold": stopped,
        "volt run --rm, warm": "volt cas status",
    }
    found = bench.race(racers, prepare=prepare)
    report.race("Daemons that are started by the call", found, ["volt run --rm, warm"])


def test_verbs(bench, report):
    """What a person does with a container that runs."""
    bench.sh(f"volt run -d --name bench {IMAGE} sleep infinity; podman rm -f -i bench >/dev/null")
    bench.sh(f"podman run -d --name bench --cgroups=disabled --network none --rootfs {TREE} sleep infinity")
    try:
        racers = {
            "volt exec": "volt exec bench /bin/true",
            "podman exec": "podman exec bench /bin/true",
            "volt inspect": "volt inspect bench",
            "podman inspect": "podman inspect bench",
            "volt ps": "volt ps",
            "podman ps": "podman ps",
        }
        found = bench.race(racers)
    finally:
        bench.sh("volt rm --force bench; podman rm -f -t 0 bench")
    report.race("With a container that runs", found, ["podman exec"])
