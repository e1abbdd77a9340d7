"""The lab's command line: up, run, shell, push, pull, power-cut, down, list."""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path

from voltlab import install, layers, machine, nspawn, vm
from voltlab.failure import Failure
from voltlab.machine import Machine

LAB = Path(__file__).resolve().parents[1] / "lab"


def say(text: str) -> None:
    """One line for the person, apart from what commands inside print."""
    print(f"lab: {text}", file=sys.stderr, flush=True)


def up(options: argparse.Namespace) -> int:
    """Start a machine: a new one from the cached layers, or the disk of one that was stopped."""
    began = time.monotonic()
    layers.script("need", *install.HOST_PACKAGES, *(vm.HOST_PACKAGES if options.flavour == "vm" else ()))
    known = machine.find(options.name)
    if known is not None and known.running:
        if known.flavour != options.flavour or (options.suite and known.suite != options.suite):
            raise Failure(f"machine {options.name} is {known.suite}/{known.flavour}; `lab down --name {options.name}`")
        say(f"machine {options.name} is up already ({known.suite}, {known.flavour})")
        return 0
    if known is None:
        known = machine.create(options.name, options.suite or "bookworm", options.flavour)
        known.log_writes = options.log_writes
        try:
            install.prepare(known, options.include, bare=options.bare)
        except BaseException:
            known.remove()
            raise
    (vm if known.flavour == "vm" else nspawn).boot(known)
    say(f"machine {known.name} is up ({known.suite}, {known.flavour}, {time.monotonic() - began:.1f} s)")
    return 0


def run(options: argparse.Namespace) -> int:
    """Become the command in the machine: streams and exit status are its own."""
    argv = options.command[1:] if options.command[:1] == ["--"] else options.command
    if not argv:
        raise Failure("which command? lab run [--name N] [--user U] -- COMMAND…")
    return enter(machine.get(options.name), argv, options.user, options.env)


def enter(target: Machine, argv: list[str], user: str | None, environment: list[str]) -> int:
    """Run a command in the machine with this process' streams, in place of this process where that is possible."""
    if target.flavour == "vm":
        return vm.enter(target, argv, user, environment)
    return nspawn.enter(target, argv, user, environment)


def shell(options: argparse.Namespace) -> int:
    """A login shell on a terminal of the machine's own, which a terminal of this host is not, in there."""
    quiet = ["script", "--quiet", "--return", "--command", "exec bash -l", "/dev/null"]
    return enter(machine.get(options.name), quiet, options.user, [f"TERM={os.environ.get('TERM', 'linux')}"])


def inside(name: str, script: str, *arguments: str) -> list[str]:
    """The command line that runs a shell script in a machine."""
    return [str(LAB), "run", "--name", name, "--", "sh", "-euc", script, "sh", *arguments]


def push(options: argparse.Namespace) -> int:
    """Copy a file or directory into the machine, under the name given."""
    source = Path(options.source)
    if not source.exists():
        raise Failure(f"there is no {source}")
    inner = 'mkdir -p "$(dirname "$1")"; ' + (
        'mkdir -p "$1"; tar -x --xattrs -C "$1" -f -' if source.is_dir() else 'cat >"$1"; chmod "$2" "$1"'
    )
    command = inside(options.name, inner, options.target, f"{source.stat().st_mode & 0o7777:o}")
    if source.is_dir():
        outer = ["tar", "-c", "--xattrs", "-C", str(source), "-f", "-", "."]
        with subprocess.Popen(outer, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as tar:
            code = subprocess.run(command, stdin=tar.stdout, check=False).returncode
            return code or tar.wait()
    with source.open("rb") as file:
        return subprocess.run(command, stdin=file, check=False).returncode


def pull(options: argparse.Namespace) -> int:
    """Copy a file or directory out of the machine, under the name given."""
    target = Path(options.target)
    machine.get(options.name)
    kind = subprocess.run(
        inside(options.name, 'if [ -d "$1" ]; then exit 10; fi; [ -e "$1" ] || exit 11', options.source), check=False
    ).returncode
    if kind == 11:
        raise Failure(f"there is no {options.source} in machine {options.name}")
    if kind == 0:
        with target.open("wb") as file:
            return subprocess.run(inside(options.name, 'cat "$1"', options.source), stdout=file, check=False).returncode
    if kind != 10:
        return kind
    target.mkdir(parents=True, exist_ok=True)
    command = inside(options.name, 'tar -c --xattrs -C "$1" -f - .', options.source)
    with subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE) as tar:
        code = subprocess.run(["tar", "-x", "--xattrs", "-C", target, "-f", "-"], stdin=tar.stdout, check=False)
        return code.returncode or tar.wait()


def power_cut(options: argparse.Namespace) -> int:
    """Pull the plug of a vm machine; `up` boots the same disk again."""
    target = machine.get(options.name)
    if target.flavour != "vm":
        raise Failure(
            f"machine {target.name} is of the nspawn flavour: the host's kernel would write out what it knows"
        )
    vm.power_cut(target)
    say(f"machine {target.name} lost its power")
    return 0


def down(options: argparse.Namespace) -> int:
    """End machines and remove all that is theirs; the cached layers stay."""
    if options.all:
        chosen = machine.every()
    elif options.run:
        chosen = [one for one in machine.every() if one.run == options.run]
    else:
        one = machine.find(options.name)
        if one is None and (layers.state() / "machines" / options.name).exists():
            one = Machine(options.name, "?", "nspawn")
        if one is None:
            raise Failure(f"there is no machine {options.name}")
        chosen = [one]
    for one in chosen:
        (vm if one.flavour == "vm" else nspawn).stop(one)
        one.remove()
        say(f"machine {one.name} is gone")
    return 0


def show(options: argparse.Namespace) -> int:
    """A line per machine."""
    print(f"{'NAME':<24} {'SUITE':<9} {'FLAVOUR':<8} {'STATE':<8} PID")
    for one in machine.every():
        state = "running" if one.running else "stopped"
        print(f"{one.name:<24} {one.suite:<9} {one.flavour:<8} {state:<8} {one.pid or '-'}")
    return 0


def parser() -> argparse.ArgumentParser:
    """The command line; each command's function is in `call`."""
    top = argparse.ArgumentParser(
        prog="lab", description="Machines with real systemd, and Volt installed, to try it in."
    )
    commands = top.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, call: object, text: str, *, named: bool = True) -> argparse.ArgumentParser:
        made = commands.add_parser(name, help=text, description=text)
        made.set_defaults(call=call)
        if named:
            made.add_argument("--name", default="default", help="the machine (default: default)")
        return made

    one = add("up", up, "start a machine; a second time it takes seconds")
    one.add_argument("--flavour", choices=machine.FLAVOURS, default="nspawn")
    one.add_argument("--suite", choices=sorted(layers.PYTHON), help="Debian's name (default: bookworm)")
    one.add_argument("--include", default="", metavar="PACKAGE,…", help="more Debian packages in it")
    one.add_argument("--bare", action="store_true", help="without Volt")
    one.add_argument("--log-writes", action="store_true", help="vm: log every write to the disk, to cut it anywhere")
    one = add("run", run, "run a command in a machine, with its streams and exit status")
    one.add_argument("--user", help="as this user of the machine instead of root")
    one.add_argument("--env", action="append", default=[], metavar="NAME=VALUE")
    one.add_argument("command", nargs=argparse.REMAINDER, metavar="-- COMMAND…")
    one = add("shell", shell, "a login shell in a machine")
    one.add_argument("--user", help="as this user of the machine instead of root")
    one = add("push", push, "copy a file or directory into a machine")
    one.add_argument("source")
    one.add_argument("target", help="its name in the machine")
    one = add("pull", pull, "copy a file or directory out of a machine")
    one.add_argument("source", help="its name in the machine")
    one.add_argument("target")
    add("power-cut", power_cut, "pull the plug of a vm machine; `up` boots its disk again")
    one = add("down", down, "end a machine and remove all that is its own")
    one.add_argument("--all", action="store_true", help="every machine")
    one.add_argument("--run", metavar="ID", help="those started with VOLT_LAB_RUN=ID in the environment")
    add("list", show, "the machines there are", named=False)
    return top


def main() -> int:
    """Run one command of the lab; a Failure is one line and exit status 125, apart from any a command gives."""
    if os.geteuid() != 0:
        keep = "--preserve-env=VOLT_LAB_DIR,VOLT_LAB_RUN,VOLT_CACHE_DIR,XDG_CACHE_HOME,TERM"
        os.execvp("sudo", ["sudo", keep, str(LAB), *sys.argv[1:]])
    os.environ["PATH"] = f"{os.environ.get('PATH', '/usr/bin:/bin')}:/usr/sbin:/sbin"
    options = parser().parse_args()
    try:
        code: int = options.call(options)
    except Failure as failure:
        say(str(failure))
        return 125
    except KeyboardInterrupt:
        return 130
    return code
