"""volt-ctrd."""

from __future__ import annotations

from volt_common.daemon import run
from volt_ctrd.daemon import Ctrd


def main() -> None:
    """The console script."""
    run(Ctrd())


if __name__ == "__main__":
    main()
