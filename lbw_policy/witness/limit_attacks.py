"""Attacks on promises about limits: whatever asks for an action is made to ask for as long as it can."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from lbw_policy.witness import goals
from lbw_policy.witness.attack import Attack, Case
from lbw_policy.witness.overruns import asking, beyond, gains_less, stalled, window_of
from lbw_policy.witness.scripts import Phase
from lbw_policy.witness.search import Effort, Goal, Standing

LONGEST_WINDOW = 2_100
"""Longer windows are not run through."""
_STOPPING = ("skip", "rollback")
"""What costs updates."""
_HOSTILE = Effort(tries=12, ticks=8_000)


def limits(attack: Attack) -> Iterator[Case]:
    """Let each rule that asks for an action ask again and again, within one window."""
    claims = beyond(attack.claim)
    if claims is None:
        return
    action = attack.claim.about.split()[0]
    spacing = attack.claim.about == "rollback spacing"
    window = min(attack.bound() if spacing else window_of(attack.claim), LONGEST_WINDOW)
    for start in _asked(attack, () if action == "intervene" else (action,)):
        end = _lower(attack, start) if action == "scale_lr" else _longer(attack, start, window)
        if end:
            yield end.script, attack.exhibit(f"the limit of {attack.claim.about} holds", claims)


def _longer(attack: Attack, start: Standing, window: int) -> Standing:
    """Let it go on for a window; one window in all shows most plainly what it holds."""
    left = window - start.script.ticks
    return attack.search.extend(start, Phase(left if left > window // 2 else window, start.shapes))


def _lower(attack: Attack, start: Standing) -> Standing | None:
    return attack.reach(start, goals.slows(attack.claim.bound or 0.0, attack.titles), (start.shapes,))


def progress(attack: Attack) -> Iterator[Case]:
    """Find a window that gains less than it should, or nothing where nothing is promised."""
    span, gain = window_of(attack.claim), max(1, int(attack.claim.bound or 0))
    for end in _stalls(attack, goals.gains_little(span, gain, attack.titles)):
        yield end.script, attack.exhibit("the run makes progress", gains_less(span, gain))


def livelock(attack: Attack) -> Iterator[Case]:
    """Find a stretch without an accepted update; what is kept from the baselines no test can see."""
    if attack.claim.about == "baselines":
        return
    span = attack.bound() + 1
    for end in _stalls(attack, goals.stalls(span, attack.titles)):
        yield end.script, attack.exhibit("an update is accepted in the end", stalled(span))


def _stalls(attack: Attack, goal: Goal) -> Iterator[Standing]:
    for start in _asked(attack, _STOPPING) if goal.ticks <= LONGEST_WINDOW else ():
        end = attack.reach(start, goal, (start.shapes,), _HOSTILE)
        if end:
            yield end


def _asked(attack: Attack, actions: Sequence[str]) -> Iterator[Standing]:
    """Yield a run for each rule that asks for one of the actions, at the tick at which it does."""
    for rule in asking(attack.policy, actions):
        found = attack.reach(attack.begin(), goals.acts(attack.policy, rule))
        if found:
            yield found
