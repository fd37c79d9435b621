"""The report of a tuning, whole: made by hand, so that no search or sampler is in it."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from attrs import evolve

from lbw_policy.diagnostics import Span
from lbw_policy.traces import Trace
from lbw_policy.tuning.counting import Score
from lbw_policy.tuning.params import Space, Tunable
from lbw_policy.tuning.report import MOST_ROWS, Tuned, as_json, shown, text
from lbw_policy.tuning.runs import Parts, Run, Trouble
from lbw_policy.tuning.search import Search, Tried, choose

SPACE = Space(
    (
        Tunable("jump", 2.0, 100.0, 10.0, Span(0, 0)),
        Tunable("span", 8.0, 512.0, 128.0, Span(0, 0), whole=True, steps=True),
    ),
    {"fixed": "has one possible value"},
)


def _runs(healthy: int, diverged: int) -> tuple[Run, ...]:
    trace = Trace(Path("x.npz"), (), {}, 1_000)
    calm = [Run(f"h{number}", trace, 1_000) for number in range(healthy)]
    return (*calm, *(Run(f"d{number}", trace, 500, Trouble(500, 510, 515)) for number in range(diverged)))


def _tried(jump: float, span: float, leads: tuple[int, ...], rules: Mapping[str, int]) -> Tried:
    counts = Counter(rules)
    return Tried({"jump": jump, "span": span}, Score((12_000,), (counts.total(),), counts, 4, leads))


PRESENT = _tried(10.0, 128.0, (1, 2, 9), {"reflex spike": 9, "level caution": 1})
TRIED = [PRESENT, _tried(20.0, 64.0, (2, 2, 9), {"reflex spike": 3}), _tried(90.0, 128.0, (1,), {})]


def _tuned(budget: float) -> Tuned:
    held = {tuple(one.setting.values()): Score((2_000,), (1,), Counter({"reflex spike": 1}), 1, (3,)) for one in TRIED}
    search = Search(list(TRIED), Counter({"`lbw-check` finds LBW401": 1}))
    parts = Parts(_runs(10, 4), _runs(2, 0))
    return Tuned("mine", SPACE, parts, budget, search, choose(TRIED, SPACE, budget), held, ("it skips",))


def test_the_report_shows_trade_off_choice_and_doubts() -> None:
    assert "\n".join(text(_tuned(0.3))) == (
        """\
mine: `jump`, `span` at 3 settings, at most 0.3 false alarms per 1_000 healthy steps
  chosen on  14 runs: 4 diverged, 10 healthy; 12_000 healthy steps
  held out   2 runs: 2 healthy; 2_000 healthy steps

                 chosen on                     held out
jump       span  caught  lead  false  at most  caught  lead  false  at most
  90  128 steps   25.0%     1   0.00     0.25  100.0%     3   0.50     2.37
  20   64 steps   75.0%     2   0.25     0.65  100.0%     3   0.50     2.37  <- chosen
  10  128 steps   75.0%     2   0.83     1.41  100.0%     3   0.50     2.37  <- present

chosen: jump = 20 (was 10), span = 64 steps (was 128 steps)
false alarms of the chosen values: reflex spike 3
note: param `fixed` is left as it is: it has one possible value
note: 1 setting passed over: `lbw-check` finds LBW401
note: its test "it skips" passes now, and fails under the chosen values
note: on the runs held out the chosen values are beyond the budget: 0.50 per 1_000"""
    )


def test_where_nothing_is_chosen_the_report_says_what_the_best_would_cost() -> None:
    """Beyond every budget, or catching nothing within it; and how little few healthy steps can show."""
    strict = evolve(_tuned(0.1), search=Search([PRESENT, TRIED[1]]), chosen=None)
    told = "\n".join(text(strict))
    assert "nothing chosen: no setting tried is within the budget of 0.1; the lowest rate of one that" in told
    assert "false alarms of the present values: reflex spike 9, level caution 1" in told
    assert "12_000 healthy steps are few: without one false alarm they show no rate below 0.25" in told
    deaf = evolve(strict, search=Search([PRESENT, _tried(90.0, 128.0, (), {})]))
    assert "0.83, and what is within the budget catches nothing" in "\n".join(text(deaf))
    mute = evolve(strict, search=Search([_tried(90.0, 128.0, (), {})]))
    assert "nothing chosen: no setting tried catches a divergence" in "\n".join(text(mute))


def test_where_the_present_values_are_best_the_report_says_so() -> None:
    same = evolve(_tuned(2.0), search=Search([PRESENT, TRIED[2]]), chosen=PRESENT)
    assert "chosen: the present values; no other setting tried is better" in list(text(same))


def test_the_json_has_what_the_table_has() -> None:
    """Every setting tried, the rows of the trade-off with both parts, and the choice; it is plain data."""
    found = json.loads(json.dumps(as_json(_tuned(0.3)), allow_nan=False))
    assert found["chosen"] == {"jump": 20.0, "span": 64.0}
    assert found["present"] == SPACE.present
    assert [row["chosen_on"]["false_alarms"] for row in found["trade_off"]] == [0, 3, 10]
    assert [row["held_out"]["lead"] for row in found["trade_off"]] == [3.0, 3.0, 3.0]
    assert len(found["tried"]) == 3
    assert found["failing_tests"] == ["it skips"]
    assert found["runs"]["chosen_on"] == {"runs": 14, "healthy": 10, "diverged": 4}


def test_a_long_front_is_thinned_and_keeps_what_matters() -> None:
    """Both ends stay, and the chosen setting and the present one, once each, wherever they lie."""
    many = [_tried(2.0 + n, 8.0, tuple(range(n // 10)), {"r": n}) for n in range(5, 405, 10)]
    found = shown(Search([PRESENT, *many]), SPACE, many[7])
    assert found[0] is many[0]
    assert found[-1] is many[-1]
    assert sum(one is many[7] for one in found) == 1
    assert sum(one is PRESENT for one in found) == 1
    assert len(found) <= MOST_ROWS + 2
