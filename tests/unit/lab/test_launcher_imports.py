"""The root launcher imports the standard library and itself, and nothing else: it runs with no site-packages."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

PACKAGE = Path(__file__).parents[3] / "services/ctrd/volt_ctr_launch"


def imported(source: str) -> set[str]:
    """The first names of all modules that a source file imports, late imports included."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import(names=aliases):
                names |= {alias.name.partition(".")[0] for alias in aliases}
            case ast.ImportFrom(module=str(module), level=0):
                names.add(module.partition(".")[0])
    return names


def test_the_launcher_imports_only_the_standard_library_and_itself() -> None:
    allowed = sys.stdlib_module_names | {"volt_ctr_launch"}
    foreign = {path.name: imported(path.read_text()) - allowed for path in PACKAGE.rglob("*.py")}
    assert {name: names for name, names in foreign.items() if names} == {}
