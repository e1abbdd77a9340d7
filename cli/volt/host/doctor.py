"""`volt doctor`: what this host can do, and what to do about the rest."""

from __future__ import annotations

from volt.host.checks import MISSING, Finding, findings
from volt.options import Asked, Verb
from volt.output import PAINT, plain, show
from volt.settings import Settings
from volt_common.errors import MissingDependency


def run(_: Asked, settings: Settings) -> int:
    found = []
    for finding in findings():
        found.append(finding)
        if settings.output in ("table", "wide") and not settings.quiet:
            print(line(finding, settings), flush=True)  # as they come: the last ones take a moment
    if settings.structured or settings.output == "name":
        show(settings, (), [finding._asdict() for finding in found])
    lacking = [finding for finding in found if finding.state == MISSING]
    if lacking:
        names = ", ".join(finding.name for finding in lacking)
        raise MissingDependency(what=names, hint=" ".join(finding.advice for finding in lacking))
    return 0


def line(finding: Finding, settings: Settings) -> str:
    """One check."""
    state = f"{finding.state:<8}"
    if settings.color:
        state = f"\033[{PAINT[finding.state]}m{state}\033[0m"
    text = f"{state} {finding.name:<17}{plain(finding.detail)}"
    return f"{text}\n{'':26}{plain(finding.advice)}" if finding.advice else text


VERB = Verb(
    "What this host can do for Volt, and what to do about what it can't.",
    run,
    examples=("volt doctor", "volt doctor -o json"),
    detail="Exit code 10 when something is missing that containers need. A warning is about a part of it.",
)
