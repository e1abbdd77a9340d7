"""Runs inside the machine: several commands in turns, each timed from its start to its exit.

One JSON object on standard input: {"rounds", "warm", "racers": [{"name", "prepare", "run", "clean"}]}. `run` is an
argument vector, the others are shell scripts that are not timed. The answer is {name: [seconds, …]} on standard
output. In turns, because other work comes and goes on a machine, and should meet all of them alike.
"""

import json
import os
import subprocess
import sys
import time

WAIT_SECONDS = 120


def shell(script: str) -> None:
    if script:
        subprocess.run(["sh", "-ec", script], check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def timed(argv: list[str], errors: int) -> float:
    """Seconds of a run that must succeed."""
    sink = [(os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0), (os.POSIX_SPAWN_OPEN, 1, os.devnull, os.O_WRONLY, 0)]
    os.ftruncate(errors, 0)
    began = time.perf_counter()
    pid = os.posix_spawnp(argv[0], argv, os.environ, file_actions=[*sink, (os.POSIX_SPAWN_DUP2, errors, 2)])
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    took = time.perf_counter() - began
    if code:
        sys.exit(f"{argv}: {code}: {os.pread(errors, 2000, 0).decode(errors='replace')}")
    return took


def main() -> None:
    race = json.load(sys.stdin)
    errors = os.memfd_create("stderr")
    found: dict[str, list[float]] = {racer["name"]: [] for racer in race["racers"]}
    for turn in range(race["warm"] + race["rounds"]):
        for racer in race["racers"]:
            shell(racer["prepare"])
            try:
                took = timed(racer["run"], errors)
            finally:
                shell(racer["clean"])
            if turn >= race["warm"]:
                found[racer["name"]].append(took)
    json.dump(found, sys.stdout)


main()
