"""`python -m volt`."""

from volt.main import main

raise SystemExit(main())
