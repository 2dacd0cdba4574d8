"""All scenarios, by name."""

from __future__ import annotations

from childproof.bench import crowd, data, felling, hostile, imports, latency, many, spawning
from childproof.bench.model import Scenario

_ALL = (
    *spawning.SCENARIOS,
    *many.SCENARIOS,
    *crowd.SCENARIOS,
    *data.SCENARIOS,
    *felling.SCENARIOS,
    *imports.SCENARIOS,
    *latency.SCENARIOS,
    *hostile.SCENARIOS,
)
SCENARIOS: dict[str, Scenario] = {scenario.name: scenario for scenario in _ALL}
