"""What `run` and `create` take, and the container that it asks for."""

from __future__ import annotations

import os

from volt.options import Argument, Asked, Option, usage
from volt_common.api import ctr
from volt_common.errors import Invalid

MODES = tuple(mode.value for mode in ctr.Mode)

OPTIONS = (
    Option("--name", metavar="NAME", help="its name (made up otherwise)"),
    Option("-e", "--env", metavar="KEY=VALUE", repeat=True, help="a variable; KEY alone takes yours"),
    Option("--env-file", metavar="FILE", repeat=True, complete="files", help="variables, one KEY=VALUE a line"),
    Option("-v", "--volume", metavar="HOST:PATH[:ro]", repeat=True, complete="files", help="a directory of this host"),
    Option("--tmpfs", metavar="PATH", repeat=True, help="an empty directory in memory"),
    Option("-m", "--memory", metavar="SIZE", help="at most this much: 512M, 1G"),
    Option("--memory-high", metavar="SIZE", help="slow it down above this"),
    Option("--cpu", metavar="PERCENT", help="of one core; 200 is two cores"),
    Option("--cpu-weight", metavar="N", help="its share when all want more, 1 to 10000 (100)"),
    Option("--pids", metavar="N", help="at most so many processes"),
    Option("-t", "--tty", help="give it a terminal"),
    Option("-i", "--interactive", help="keep its standard input open"),
    Option("-u", "--user", metavar="USER[:GROUP]", help="who its command runs as"),
    Option("-w", "--workdir", metavar="PATH", help="where its command starts"),
    Option("--entrypoint", metavar="COMMAND", help="instead of the image's; empty for none"),
    Option("--cap-add", metavar="CAP", repeat=True, help="a further capability: NET_ADMIN"),
    Option("--mode", metavar="MODE", choices=MODES, help="hybrid-native boots the image's systemd"),
    Option("--network", metavar="NET", choices=("none", "host"), help="none has loopback only"),
    Option("--hostname", metavar="NAME", help="its host name (the container's name)"),
    Option("--read-only", help="nothing of its root can be written"),
    Option("--layer", metavar="WHERE", choices=("overlay", "tmpfs", "none"), help="where what it writes goes"),
    Option("--label", metavar="KEY=VALUE", repeat=True, help="a note on it"),
    Option("--stop-signal", metavar="SIGNAL", help="how it is asked to end"),
    Option("--stop-time", metavar="TIME", help="until it is killed after that (10)"),
)

ARGUMENTS = (
    Argument("IMAGE", "NAME, NAME:TAG or cas://DIGEST", complete="images"),
    Argument("COMMAND", "and its arguments, instead of the image's", rest=True),
)


def spec_of(asked: Asked) -> ctr.Spec:
    """Raises Usage for what can't be read, Invalid for what can't be."""
    entrypoint = asked.text("--entrypoint")
    limits = ctr.Resources(
        memory_max=asked.size("--memory"),
        memory_high=asked.size("--memory-high"),
        cpu_percent=asked.number("--cpu"),
        cpu_weight=asked.number("--cpu-weight"),
        pids_max=asked.number("--pids"),
    )
    stop = asked.seconds("--stop-time")
    return ctr.Spec(
        image=asked.one("IMAGE"),
        mode=ctr.Mode(asked.text("--mode") or "container"),
        args=asked.texts("COMMAND"),
        entrypoint=None if entrypoint is None else [entrypoint] if entrypoint else [],
        env=environment(asked),
        user=asked.text("--user") or "",
        workdir=asked.text("--workdir") or "",
        hostname=asked.text("--hostname") or "",
        tty=asked.flag("--tty"),
        interactive=asked.flag("--interactive"),
        read_only=asked.flag("--read-only"),
        layer=ctr.Layer(asked.text("--layer") or "overlay"),
        network=ctr.Network(asked.text("--network") or "none"),
        binds=[bind(text) for text in asked.texts("--volume")],
        tmpfs=asked.texts("--tmpfs"),
        capabilities=[capability(text) for text in asked.texts("--cap-add")],
        resources=limits,
        stop_signal=(asked.text("--stop-signal") or "").upper(),
        stop_seconds=10 if stop is None else round(stop),
        remove=asked.flag("--rm"),
        labels=dict(pair("--label", text) for text in asked.texts("--label")),
    )


def environment(asked: Asked) -> dict[str, str]:
    """From --env-file, then --env. Raises Usage, Invalid, OSError."""
    env: dict[str, str] = {}
    for path in asked.texts("--env-file"):
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            for number, text in enumerate(file, 1):
                text = text.rstrip("\r\n")
                if text.strip() and not text.lstrip().startswith("#"):
                    key, equals, value = text.partition("=")
                    if not equals or not key.strip():
                        raise Invalid(f"{path}, line {number}: not KEY=VALUE")
                    env[key.strip()] = value
    for text in asked.texts("--env"):
        key, equals, value = text.partition("=")
        if not key:
            raise usage(f"--env takes KEY=VALUE, not {text!r}")
        if equals:
            env[key] = value
        elif key in os.environ:
            env[key] = os.environ[key]
    return env


def bind(text: str) -> ctr.Bind:
    """`HOST:PATH[:ro|:rw]`; a relative HOST counts from here. Raises Usage, NotFound."""
    source, _, rest = text.partition(":")
    target, _, mode = rest.partition(":")
    if not source or not target or mode not in ("", "ro", "rw"):
        raise usage(f"--volume takes HOST:PATH or HOST:PATH:ro, not {text!r}")
    if "/" not in source and source not in (".", ".."):
        raise usage(f"--volume: {source!r} is no path", f"Write ./{source} for a directory here.")
    source = os.path.abspath(source)
    if not os.path.lexists(source):
        from volt_common.errors import NotFound

        raise NotFound(kind="file", name=source, hint="Make it first: mkdir -p does.")
    return ctr.Bind(source=source, target=target, read_only=mode == "ro")


def capability(text: str) -> str:
    name = text.upper()
    return name if name.startswith("CAP_") else f"CAP_{name}"


def pair(option: str, text: str) -> tuple[str, str]:
    """Raises Usage."""
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise usage(f"{option} takes KEY=VALUE, not {text!r}")
    return key, value
