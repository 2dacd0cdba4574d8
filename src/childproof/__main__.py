"""``python -m childproof``: the command `childproof`."""

from childproof._cli import main

raise SystemExit(main())
