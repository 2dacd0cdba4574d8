"""All scenarios, by name."""

from __future__ import annotations

from childproof.bench import spawning
from childproof.bench.model import Scenario

SCENARIOS: dict[str, Scenario] = {scenario.name: scenario for scenario in (*spawning.SCENARIOS,)}
