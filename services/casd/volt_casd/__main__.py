"""`python -m volt_casd`: the store's daemon."""

from __future__ import annotations

from volt_casd.daemon import main

if __name__ == "__main__":
    main()
