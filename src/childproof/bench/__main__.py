"""``python -m childproof.bench``."""

from childproof.bench.command import main

raise SystemExit(main())
