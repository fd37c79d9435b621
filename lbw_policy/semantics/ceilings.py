"""What no policy may exceed, whatever it writes."""

from __future__ import annotations

SCALE_FLOOR = 0.01
"""The lowest lr factor any policy may reach."""
SCALE_CEILING = 1.0
"""A guard slows a run down; it never speeds it up."""
ROLLBACK_DISTANCE = 10_000
FREEZE_SHARE = 0.9
FREEZE_DURATION = 100_000
SKIPS_IN_A_ROW = 100
WINDOW = 100_000
"""The longest window of a statistic, and of a budget, in steps."""
HOLD = 10_000
"""The longest window of a `for` clause, in steps."""
TIMER = 1_000_000
"""The longest cooldown, stay, restore or quarantine, in steps."""
CHAIN = 4
"""The most actions of one `do`, fallbacks included."""
OVERHEAD = 1.0
OVERHEAD_FLOOR = 0.001
"""The least overhead a policy may set: of a thousandth of a step no clock tells much."""
MEMORY = 2_000_000
"""The most samples all windows of a policy may hold together."""
