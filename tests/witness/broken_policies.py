"""Policies that load, and break a promise."""

from __future__ import annotations

from attrs import frozen

from lbw_policy.claims import Claim

_HEAD = """lbw 1
policy p { }
signal loss = telemetry.loss
signal grad = telemetry.grad_norm
"""
_LIMITS = """limits {
  scale_lr  within [0.1, 1]
  skip      at most 4 in a row, at most 20 per 100 steps
  rollback  at most 20 steps back, at most 3 per 200 steps
  intervene at most 40 per 100 steps
}
"""
_FREE = """limits {
  skip      at most 100 in a row, at most 1_000 per 1_000 steps
  rollback  at most 50 steps back, at most 1_000 per 1_000 steps
  intervene at most 1_000 per 1_000 steps
}
"""


@frozen
class Broken:
    """A policy, and the claim that does not hold of it."""

    text: str
    claim: Claim


def _broken(promise: str, about: str, rules: str, bound: float | None = None, unit: str = "steps") -> Broken:
    limits = _FREE if promise in ("progress_guaranteed", "skip_cannot_livelock") else _LIMITS
    return Broken(_HEAD + rules + limits, Claim(promise, about, "", bound, unit))


def _level(clauses: str) -> str:
    return f"levels normal -> caution\nlevel caution {{ {clauses} }}\n"


def _recover(clauses: str) -> str:
    return f"levels normal -> recover\nlevel recover {{ enter when loss > 8  {clauses} }}\n"


_BACK = "do rollback at most 50 steps"

BROKEN = {
    "stays on a NaN for ever": _broken(
        "dwell_bounded",
        "level caution",
        _level(
            "enter when loss > 2 * median(loss, 64 steps) for 3 steps  "
            "leave when loss < 1.2 * median(loss, 64 steps) for 5 steps  do scale_lr by 0.5"
        ),
    ),
    "stays longer than promised": _broken(
        "dwell_bounded",
        "level caution",
        _level("enter when grad > 5  stay at most 60 steps  do scale_lr by 0.5"),
        50,
    ),
    "has no way back": _broken("calm_returns", "", _level("enter when grad > 5  do scale_lr by 0.5")),
    "takes longer than promised to come back": _broken(
        "calm_returns", "", _level("enter when loss > 8  leave when loss < 6 for 12 steps  do scale_lr by 0.5"), 9
    ),
    "is slow to speed up again": _broken(
        "calm_returns",
        "lr factor",
        _level("enter when loss > 8  leave when loss < 6  do scale_lr by 0.5 restore over 20 steps"),
        9,
    ),
    "asks for NaN to leave": _broken(
        "unknown_never_relaxes",
        "level caution",
        _level("enter when loss > 8 for 2 steps  leave when not finite(loss) or loss < 4.5 for 2 steps  do skip"),
    ),
    "leaves on what was": _broken(
        "unknown_never_relaxes",
        "level caution",
        _level("enter when loss > 8 for 2 steps  leave when median(loss, 20 steps) < 5 for 4 steps  do skip"),
    ),
    "divides by infinity": _broken(
        "unknown_never_relaxes",
        "level caution",
        _level("enter when loss > 8 for 2 steps  leave when 1 / loss < 0.2 for 4 steps  do skip"),
    ),
    "enters and leaves on the same reading": _broken(
        "no_conflict", "level caution", _level("enter when loss > 5  leave when loss < 9  do scale_lr by 0.5")
    ),
    "enters on one signal and leaves on another": _broken(
        "no_conflict",
        "level caution",
        _level("enter when grad > 5 for 2 steps  leave when loss < 9 for 4 steps  do skip"),
    ),
    "skips all it wants": _broken(
        "progress_guaranteed", "", "reflex spike { when grad > 3 do skip }\n", 0, "updates in any 100 steps"
    ),
    "rolls back all it wants": _broken(
        "progress_guaranteed",
        "",
        _recover(f"leave when loss < 6  stay at most 50 steps  {_BACK}  each 5 steps {_BACK}"),
        -100,
        "updates in any 200 steps",
    ),
    "rolls back on every step": _broken(
        "skip_cannot_livelock",
        "",
        _recover(f"leave when loss < 6  {_BACK}  each 1 step {_BACK}"),
        300,
        "steps in a row",
    ),
    "comes back sooner than promised": _broken(
        "oscillation_bounded",
        "level caution",
        _level("enter when loss > 5 for 2 steps  leave when loss < 4.5 for 2 steps  do scale_lr by 0.5"),
        50,
    ),
    "cools down for less than promised": _broken(
        "cooldown_respected",
        "level caution",
        _level("enter when loss > 5  leave when loss < 4.5  cooldown 3 steps  do scale_lr by 0.5"),
        20,
    ),
    "cannot be left": _broken(
        "everything_can_fire",
        "level caution is left",
        _level("enter when loss > 5 for 2 steps  leave when loss < 3 and loss > 4 for 2 steps  do scale_lr by 0.5"),
    ),
    "cannot speak": _broken(
        "everything_can_fire",
        "alert never speaks",
        'alert never info when finite(loss) and not finite(loss) "never"\n',
    ),
}
