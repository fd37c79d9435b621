"""The report survives every history, as picture, table and JSON."""

import io
import json
import math
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from matplotlib.image import imread
from rich.console import Console

from lbw_policy.lab.picture import draw, end_of_numbers, off_scale, scale, shown
from lbw_policy.lab.results import Intervention, PairResult, Report, RunResult, write_json
from lbw_policy.lab.table import interventions, percent, summary, table

_ANY = st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=30).map(tuple)


def _run(losses: tuple[float, ...], held_out: float = 2.5, **more: object) -> RunResult:
    known = {"crashed": False, "recovery": 0, "halted": None, "step_ms": 10.0, "interventions": ()}
    return RunResult(losses=losses, held_out=held_out, **{**known, **more})


def _report() -> Report:
    calm = tuple(5.5 - 3 * step / 60 for step in range(60))
    acts = (Intervention(31, "skip", "granted", "r"), Intervention(32, "rollback", "refused", "level recover"))
    lost = _run((*calm[:30], *[math.nan] * 30), math.nan, crashed=True, recovery=None)
    saved = _run((*calm[:30], 1e30, math.inf, *calm[32:]), recovery=3, interventions=acts)
    none = _run((), math.nan, crashed=True, recovery=None, halted=0, step_ms=math.nan)
    pairs = (
        PairResult("none", "no trouble", 0, 0, _run(calm), _run(calm), 0.031),
        PairResult("nan_batch", "one NaN batch", 30, 1, lost, saved, 0.02),
        PairResult("bit_flip", "bit flip in a weight", 30, 1, lost, none, math.nan),
    )
    return Report("mine", "byte-level GPT", 1000, 0, 60, 5.5, pairs)


def test_the_picture_is_drawn_whatever_the_losses(tmp_path: Path) -> None:
    draw(_report(), tmp_path / "loss.png")
    height, width, _ = imread(tmp_path / "loss.png").shape
    assert width > 1000
    assert height > 500


def test_the_loss_axis_keeps_to_ordinary_losses() -> None:
    axis = scale(_report())
    assert 0 < axis.low < min(_report().calm.plain.losses)
    assert 5.5 < axis.high < 8
    assert axis.actions == ("skip",)


@given(_ANY, st.floats(0.1, 1e6))
def test_the_line_breaks_at_everything_that_cannot_be_shown(losses: tuple[float, ...], high: float) -> None:
    assert len(shown(losses, high)) == len(losses)
    assert all(math.isnan(loss) or loss <= high for loss in shown(losses, high))
    assert all(losses[step] > high for step in off_scale(losses, high))


@given(_ANY)
def test_the_end_of_numbers_is_where_only_non_finite_losses_follow(losses: tuple[float, ...]) -> None:
    end = end_of_numbers(losses)
    if end is None:
        assert not losses or math.isfinite(losses[-1])
    else:
        assert not any(math.isfinite(loss) for loss in losses[end:])
        assert end == 0 or math.isfinite(losses[end - 1])


def test_the_json_is_strict_and_has_null_for_what_is_not_a_number(tmp_path: Path) -> None:
    write_json(_report(), tmp_path / "results.json")

    def refuse(word: str) -> None:
        raise AssertionError(word)

    plain = json.loads((tmp_path / "results.json").read_text(), parse_constant=refuse)
    assert plain["pairs"][1]["plain"]["held_out"] is None
    assert plain["pairs"][1]["plain"]["losses"][29:31] == [_report().calm.plain.losses[29], None]
    assert plain["pairs"][1]["guarded"]["interventions"][0]["action"] == "skip"


def test_the_table_says_who_crashed_who_came_back_and_what_was_done() -> None:
    console = Console(width=140, record=True, file=io.StringIO())
    console.print(table(_report()))
    lines = [line.split() for line in console.export_text().splitlines()]
    unguarded = next(line for line in lines if line[:3] == ["one", "NaN", "batch"])
    assert unguarded == ["one", "NaN", "batch", "unguarded", "yes", "never", "nan", "-"]
    assert ["guarded", "no", "3", "2.500", "+0.0", "%", "1", "skip,", "1", "refused"] in lines
    assert ["guarded", "halted", "at", "0", "never", "nan", "-", "none"] in lines


def test_the_summary_counts_runs_lost_and_tells_the_overhead() -> None:
    first, second, third = summary(_report())
    assert first == "crashed: 2 of 2 unguarded, 1 of 2 guarded"
    assert "+3.1 % on the trouble-free pair" in second
    assert third.endswith("nan_batch +2.0 %, bit_flip -")


def test_shares_are_signed_and_a_missing_one_is_a_dash() -> None:
    assert [percent(0.031), percent(-0.5), percent(math.inf)] == ["+3.1 %", "-50.0 %", "-"]


def test_a_guard_that_did_nothing_says_none() -> None:
    assert interventions(_run((1.0,))) == "none"
