"""Policies to tune, and runs that are easy to tell apart."""

from __future__ import annotations

from pathlib import Path

from lbw_policy.diagnostics import Source
from lbw_policy.semantics import check_source
from lbw_policy.tuning.subject import Subject

LEAP = """# Updates that leap are left out.
lbw 1

policy leap { doc "A threshold on the update, and others to leave alone." }

# The small corpus leaps by a factor of twenty.
param most  : ratio in [1, 100] = 1.1  # far too low
param fixed : ratio in [2, 2]   = 2

signal step = telemetry.update_ratio

reflex leap { when step > most * median(step, 64 steps)  do skip }
reflex far  { when step > 1e9 * fixed                    do skip }

limits { skip at most 100 in a row, at most 1_000 per 1_000 steps }
"""
KINDS = """lbw 1
policy kinds { doc "Every unit, percentages, and a layout of its own." }
param wide : ratio in [0, 1_000_000] = 1e3 # beside
param share : probability in [1%, 50%] = 5%
param back : ratio in [-2, 2] = -0.5
param span : steps in [20 steps, 2_000 steps] = 128 steps
param many : count in [1, 9] = 2
param tiny : rate in [0.000001, 0.1] = 0.00003
# Nothing here is aligned.
signal loss = telemetry.loss
signal bad = telemetry.nonfinite_grads
signal lr = telemetry.lr
risk late { horizon 5 steps features standard alarm at most 1 false per 1_000 steps trust after 200 steps fallback 0% }
alert a info when loss > wide * median(loss, span) or late > share or log(loss / median(loss, span)) < back "{loss}"
alert b info when bad > many or lr > tiny "x"
"""


def subject(text: str, path: Path | None = None, alarm: str = "interventions") -> Subject:
    """Return a policy text that checks as the subject of tuning."""
    source = Source("<text>", text)
    policy = check_source(source, {}, path).policy
    assert policy is not None
    return Subject(policy, source, path, alarm)
