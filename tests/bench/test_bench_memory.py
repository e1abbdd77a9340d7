"""Memory that is resident: of the daemons, and of what stays beside a container that runs."""

from __future__ import annotations

import json

IMAGE = "debian:bench"

# Every process below volt.slice, by what it is; PSS counts a shared page once among those that share it.
_LOOK = """
import glob, json, os
def below(path):
    for name in glob.glob(path + "/**/cgroup.procs", recursive=True):
        for pid in open(name).read().split():
            yield os.path.relpath(os.path.dirname(name), path), pid
found = []
for group, pid in below("/sys/fs/cgroup/volt.slice"):
    try:
        rollup = dict(line.split(":", 1) for line in open(f"/proc/{pid}/smaps_rollup").read().splitlines()[1:])
        command = open(f"/proc/{pid}/cmdline").read().split(chr(0))
    except OSError:
        continue
    found.append([group, " ".join(os.path.basename(one) for one in command[:4])[:60]]
                 + [int(rollup[key].split()[0]) for key in ("Rss", "Pss")])
print(json.dumps(found))
"""

# The daemons leave by themselves (idle_seconds of config.yaml, 30): only systemd's sockets stay.
_IDLE = "for unit in casd ctrd; do while systemctl -q is-active volt-$unit.service; do sleep 0.5; done; done"


def test_memory(bench, report):
    rows = []

    def look(when):
        found = json.loads(bench.python(_LOOK))
        rows.append(
            [when, "all", f"{sum(one[2] for one in found) / 1024:.1f}", f"{sum(one[3] for one in found) / 1024:.1f}"]
        )
        for group, command, rss, pss in found:
            rows.append(
                [
                    "",
                    f"{group.split('/')[0].removesuffix('.service')}: {command}",
                    f"{rss / 1024:.1f}",
                    f"{pss / 1024:.1f}",
                ]
            )

    bench.sh("volt ps -a -o name | xargs -r volt rm --force")
    bench.sh(_IDLE)
    look("idle")
    bench.sh(f"volt run --rm {IMAGE} /bin/true; volt image list; volt cas status")
    look("warm, no container")
    bench.sh(f"volt run -d --name bench {IMAGE} sleep infinity\n{_IDLE}")
    try:
        look("idle, one container")
    finally:
        bench.sh("volt rm --force bench")
    report.table("Resident memory", ["", "process", "RSS MiB", "PSS MiB"], rows)
