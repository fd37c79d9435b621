"""`import` and `extends`: what files bring together, where findings point, and that a child only tightens."""

from __future__ import annotations

import itertools
import os
import re
from collections.abc import Mapping
from pathlib import Path

import pytest
from attrs import evolve, fields
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lbw_policy.diagnostics import Source, Span, as_json, render
from lbw_policy.semantics import Policy, check, check_bytes, check_path, load
from lbw_policy.semantics import policy as p
from lbw_policy.semantics.tightening import implies, loosenings
from lbw_policy.syntax import nodes, parse
from tests.strategies import limit_sets
from tests.texts import policy_texts

SHARED = "lbw 1\nsignal grad = telemetry.grad_norm\nlet jump = grad / median(grad, 128 steps)\n"
USES = 'lbw 1\npolicy mine { }\nimport "shared.lbw"\nalert high info when jump > 4 "high"\n'
drawn = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def write(folder: Path, texts: Mapping[str, str]) -> Path:
    """Write files by name and return the path of the first."""
    for name, text in texts.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text.encode())
    return folder / next(iter(texts))


def found(folder: Path, texts: Mapping[str, str]) -> list[tuple[str, str, int | None]]:
    """Return code, file and line of each finding about the first of some files."""
    rows = [as_json(finding) for finding in check_path(write(folder, texts)).diagnostics]
    return [(row["code"], os.path.relpath(row["path"], folder), row["line"]) for row in rows]


def meaning(policy: Policy) -> str:
    """Return a policy without what tells where and under which name it was written."""
    plain = repr(evolve(policy, digest="", doc="", warnings=(), tests=()))
    return re.sub(r"Place\(path=.*?, line=\d+\)", "Place", plain)


# Where things are


@given(st.lists(st.text(alphabet="ab\n\r", max_size=12), min_size=1, max_size=5), st.data())
def test_a_place_in_joined_files_is_the_place_in_its_own_file(texts: list[str], data: st.DataObject) -> None:
    parts = [Source(f"{at}.lbw", text) for at, text in enumerate(texts)]
    at = data.draw(st.integers(0, len(parts) - 1))
    offset = data.draw(st.integers(0, len(parts[at].text)))
    begin = sum(len(part.text) + 1 for part in parts[:at])
    whole = Source.joined(parts)

    assert whole.name_at(begin + offset) == parts[at].name
    assert whole.position(begin + offset) == parts[at].position(offset)
    assert whole.text[begin : begin + len(parts[at].text)] == parts[at].text


def test_one_file_alone_is_not_joined() -> None:
    source = Source("a.lbw", "x")

    assert Source.joined([source]) is source
    assert source.part_at(1) == (0, source)


def test_nodes_of_the_last_file_count_from_the_start_of_the_joined_text() -> None:
    alone = parse(Source("b.lbw", SHARED)).tree.statements[0]
    joined = parse(Source.joined([Source("a.lbw", USES), Source("b.lbw", SHARED)])).tree.statements[0]

    assert isinstance(alone, nodes.Signal)
    assert joined.span == Span(alone.span.start + len(USES) + 1, alone.span.end + len(USES) + 1)


def test_a_finding_points_into_the_file_it_is_about(tmp_path: Path) -> None:
    texts = {"a.lbw": USES + "let odd = nowhere\n", "shared.lbw": SHARED + "\nlet bad = grad > 3 steps\nsignal x ="}

    assert found(tmp_path, texts) == [("LBW201", "a.lbw", 5), ("LBW204", "shared.lbw", 5), ("LBW100", "shared.lbw", 6)]


def test_a_rule_is_recorded_under_the_file_it_stands_in(tmp_path: Path) -> None:
    parent = USES.replace("alert high", "\n\nalert high")
    path = write(tmp_path, {"a.lbw": 'lbw 1 policy a { extends "b.lbw" }', "b.lbw": parent, "shared.lbw": SHARED})

    (alert,) = load(path).alerts
    assert (Path(alert.place.path).name, alert.place.line) == ("b.lbw", 6)


# Imports


def test_imports_bring_declarations_wherever_the_files_lie(tmp_path: Path) -> None:
    texts = {
        "a.lbw": USES.replace("shared.lbw", "in/one.lbw"),
        "in/one.lbw": 'lbw 1 import "../two.lbw" import "deep/three.lbw" let jump = grad / least',
        "two.lbw": 'lbw 1 import "in/deep/three.lbw" signal grad = telemetry.grad_norm',
        "in/deep/three.lbw": "lbw 1 param least : norm in [1, 2] = 1",
    }

    policy = load(write(tmp_path, texts), params={"least": 2})
    assert [param.value for param in policy.params] == [2]
    assert [signal.name for signal in policy.signals] == ["grad"]


def test_a_name_that_is_imported_need_not_be_used(tmp_path: Path) -> None:
    texts = {"a.lbw": USES + "let mine = jump\n", "shared.lbw": SHARED + "let theirs = jump\n"}

    assert found(tmp_path, texts) == [("LBW401", "a.lbw", 5)]


def test_the_digest_covers_every_file(tmp_path: Path) -> None:
    texts = {"a.lbw": USES, "shared.lbw": SHARED}
    first = load(write(tmp_path, texts)).digest
    again = load(write(tmp_path / "elsewhere", texts)).digest
    other = load(write(tmp_path, texts | {"shared.lbw": SHARED + "# new"})).digest

    assert first == again != other


def test_a_file_may_not_lead_back_to_itself(tmp_path: Path) -> None:
    assert found(tmp_path, {"a.lbw": USES.replace("shared", "a")})[0] == ("LBW601", "a.lbw", 3)
    link = tmp_path / "shared.lbw"
    link.symlink_to(tmp_path / "a.lbw")
    assert found(tmp_path, {"a.lbw": USES}) == [("LBW601", "a.lbw", 3)]


def test_a_device_is_not_read(tmp_path: Path) -> None:
    assert found(tmp_path, {"a.lbw": USES.replace("shared.lbw", "/dev/zero")}) == [("LBW602", "a.lbw", 3)]


def test_a_file_that_is_no_text_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "shared.lbw").write_bytes(b"lbw 1\n\xff")
    (finding,) = check_path(write(tmp_path, {"a.lbw": USES})).diagnostics

    assert (finding.code, finding.message) == ("LBW602", "expected UTF-8 text, found byte 0xFF on line 2")


@pytest.mark.parametrize("count", [17, 80])
def test_files_cannot_go_on_for_ever(tmp_path: Path, count: int) -> None:
    chain = {f"{at}.lbw": f'lbw 1 import "{at + 1}.lbw"' for at in range(1, count)}
    codes = [row[0] for row in found(tmp_path, {"0.lbw": 'lbw 1 policy p { } import "1.lbw"', **chain})]
    assert codes == ["LBW604"]

    many = "".join(f'import "{at}.lbw" ' for at in range(1, count))
    flat = {f"{at}.lbw": "lbw 1" for at in range(1, count)}
    codes = [row[0] for row in found(tmp_path, {"0.lbw": f"lbw 1 policy p {{ }} {many}", **flat})]
    assert set(codes) == ({"LBW604"} if count > 64 else set())


def test_files_may_not_be_longer_together_than_one_alone(tmp_path: Path) -> None:
    texts = {"a.lbw": USES, "shared.lbw": SHARED + "#" * 255_900}

    assert found(tmp_path, texts) == [("LBW604", "a.lbw", 3)]


def test_a_text_without_a_file_imports_by_whole_paths_only(tmp_path: Path) -> None:
    write(tmp_path, {"shared.lbw": SHARED})
    (finding,) = check(USES).diagnostics
    assert finding.code == "LBW605"
    assert check(USES.replace("shared.lbw", str(tmp_path / "shared.lbw"))).diagnostics == ()
    assert check_bytes("<stdin>", USES.encode(), path=tmp_path / "unsaved.lbw").diagnostics == ()


@pytest.mark.parametrize("inherits", [False, True])
@pytest.mark.parametrize("secret", ["token: hunter2", "# key\n\n  hunter2 = 1", "lbwish hunter2", "", "# hunter2 # #"])
def test_nothing_of_a_file_that_is_no_policy_is_shown(tmp_path: Path, secret: str, inherits: bool) -> None:
    """Who checks a policy from elsewhere, in CI say, must not publish whatever file it names."""
    text = 'lbw 1 policy p { extends "s" }' if inherits else 'lbw 1 policy p { } import "s"'
    (finding,) = check_path(write(tmp_path, {"a.lbw": text, "s": secret})).diagnostics

    assert (finding.code, as_json(finding)["line"]) == ("LBW111", 1)
    assert "hunter2" not in render(finding)


@drawn
@given(st.text(st.characters(exclude_characters='"\\\n\r', codec="utf-8"), max_size=30), st.booleans())
def test_no_path_is_too_odd_to_answer(tmp_path: Path, name: str, inherits: bool) -> None:
    text = f'lbw 1 policy p {{ extends "{name}" }}' if inherits else f'lbw 1 policy p {{ }} import "{name}"'
    checked = check_path(write(tmp_path, {"a.lbw": text}))

    assert checked.policy is None
    assert checked.diagnostics


@drawn
@given(policy_texts())
def test_importing_a_file_is_pasting_its_declarations(tmp_path: Path, text: str) -> None:
    kinds = nodes.Param | nodes.Signal | nodes.Let | nodes.Risk
    spans = [node.span for node in parse(Source("", text)).tree.statements if isinstance(node, kinds)]
    shared = "lbw 1\n" + "\n".join(text[span.start : span.end] for span in spans)
    rest = "".join(
        text[a.end : b.start] for a, b in itertools.pairwise([Span(0, 0), *spans, Span(len(text), len(text))])
    )
    path = write(tmp_path, {"a.lbw": rest.replace("lbw 1", 'lbw 1 import "shared.lbw"', 1), "shared.lbw": shared})

    assert meaning(load(path)) == meaning(load(text))


# Extending


@drawn
@given(policy_texts())
def test_a_child_that_adds_nothing_means_what_its_parent_means(tmp_path: Path, text: str) -> None:
    path = write(tmp_path, {"a.lbw": 'lbw 1 policy drawn { extends "b.lbw" }', "b.lbw": text})
    child = load(path)

    assert meaning(child) == meaning(load(text))
    assert child.digest != load(text).digest


def test_a_child_replaces_what_has_the_same_name_in_its_place(tmp_path: Path) -> None:
    rules = "".join(f"reflex {name} {{ when grad > {at}  do skip }}\n" for at, name in enumerate("abc", start=1))
    limits = "limits { skip at most 4 in a row, at most 20 per 1_000 steps }\n"
    child = (
        'lbw 1 policy mine { extends "b.lbw" } reflex d { when grad > 9 do skip } reflex b { when grad > 8 do skip }'
    )
    texts = {"a.lbw": child, "b.lbw": f"lbw 1 policy b {{ }}\nsignal grad = telemetry.grad_norm\n{rules}{limits}"}

    reflexes = load(write(tmp_path, texts)).reflexes
    assert [(reflex.name, reflex.condition.right.value) for reflex in reflexes] == [  # type: ignore[union-attr] # comparisons
        ("a", 1), ("b", 8), ("c", 3), ("d", 9),
    ]  # fmt: skip


def test_neither_header_nor_tests_are_inherited(tmp_path: Path) -> None:
    test = 'test "t" { given grad = 1 x 10  expect no skip }'
    parent = f'lbw 1 policy b {{ doc "theirs" quarantine at most 9 steps }} signal grad = telemetry.grad_norm {test}'
    path = write(tmp_path, {"a.lbw": 'lbw 1 policy mine { extends "b.lbw" }', "b.lbw": parent})
    policy = load(path)

    assert (policy.name, policy.doc, policy.tests, policy.quarantine) == ("mine", "", (), 9)
    assert len(load(tmp_path / "b.lbw").tests) == 1


def test_what_is_wrong_with_a_parent_is_said_once_and_there(tmp_path: Path) -> None:
    texts = {
        "a.lbw": 'lbw 1 policy a { extends "b.lbw" }',
        "b.lbw": 'lbw 1 policy b { extends "c.lbw" }',
        "c.lbw": "lbw 1 policy c { }\nlet x = nowhere",
    }

    assert found(tmp_path, texts) == [("LBW201", "c.lbw", 2)]


def test_advice_on_a_parent_is_given_where_the_parent_is_checked(tmp_path: Path) -> None:
    texts = {"a.lbw": 'lbw 1 policy a { extends "b.lbw" }', "b.lbw": "lbw 1 policy b { }\nsignal loss = telemetry.loss"}

    assert found(tmp_path, texts) == []
    assert [finding.code for finding in check_path(tmp_path / "b.lbw").diagnostics] == ["LBW401"]


LIMIT = """lbw 1 policy b { }
param reach : steps in [10 steps, 50 steps] = 20 steps
limits { rollback at most reach back, at most 3 per 1_000 steps }
"""


def test_a_param_of_the_parent_can_be_set_through_the_child(tmp_path: Path) -> None:
    path = write(tmp_path, {"a.lbw": 'lbw 1 policy a { extends "b.lbw" }', "b.lbw": LIMIT})
    limits = load(path, params={"reach": 50}).limits

    assert limits.rollback is not None
    assert limits.rollback.distance == 50


def test_a_limit_cannot_be_loosened_by_a_wider_param(tmp_path: Path) -> None:
    child = 'lbw 1 policy a { extends "b.lbw" }\nparam reach : steps in [10 steps, 500 steps] = 20 steps'
    path = write(tmp_path, {"a.lbw": child, "b.lbw": LIMIT})

    assert load(path).limits == load(tmp_path / "b.lbw").limits
    codes = [finding.code for finding in check_path(path, {"reach": 21}).diagnostics]
    assert codes == ["LBW607"]


def test_a_child_may_not_lower_the_floor_of_the_lr_factor(tmp_path: Path) -> None:
    rule = "signal lr = telemetry.lr reflex r { when lr > 1 do scale_lr by 0.5 }"
    texts = {"b.lbw": f"lbw 1 policy b {{ }} {rule} limits {{ scale_lr within [0.1, 1] }}"}
    for line, codes in (("scale_lr within [0.1, 0.9]", []), ("scale_lr within [0.09, 0.9]", ["LBW607"])):
        child = f'lbw 1 policy a {{ extends "b.lbw" }} limits {{ {line} }}'
        path = write(tmp_path, {"a.lbw": child, **texts})
        assert [finding.code for finding in check_path(path).diagnostics] == codes


@pytest.mark.parametrize(
    ("line", "code"),
    [
        ("skip at most 16 in a row, at most 40 per 1_000 steps", None),
        ("skip at most 16 in a row, at most 40 per 2_000 steps", None),
        ("skip at most 16 in a row, at most 4 per 100 steps", None),
        ("skip at most 16 in a row, at most 5 per 100 steps", "LBW607"),
        ("skip at most 16 in a row, at most 41 per 100_000 steps", "LBW607"),
        ("skip at most 17 in a row, at most 40 per 1_000 steps", "LBW607"),
        ("scale_lr within [0.1, 0.9]", None),
        ("rollback at most 51 steps back, at most 4 per 1_000 steps, at least 5 steps apart", "LBW607"),
        ("freeze at most 26% of layers, for at most 1 step", "LBW607"),
        ("reset_moments at most 3 per 1_000 steps", "LBW607"),
        ("checkpoint at most 1 per 1_000 steps", "LBW608"),
        ("intervene at most 21 per 100 steps", "LBW607"),
    ],
)
def test_a_child_may_only_tighten(line: str, code: str | None) -> None:
    checked = check(f"lbw 1 policy mine {{ extends conservative }} limits {{ {line} }}")
    codes = [finding.code for finding in checked.diagnostics if finding.code.startswith("LBW6")]

    assert codes == ([code] if code else [])


SPACED = """lbw 1
policy parent { }
signal loss = telemetry.loss
reflex lost { when not finite(loss) do rollback at most 20 steps }
limits { rollback at most 20 steps back, at most 3 per 1_000 steps, at least 20 steps apart }
"""


@pytest.mark.parametrize(
    ("limit", "looser"),
    [
        ("at most 3 per 1_000 steps, at least 20 steps apart", False),
        ("at most 2 per 1_000 steps, at least 30 steps apart", False),
        ("at most 3 per 1_000 steps, at least 19 steps apart", True),
        ("at most 2 per 1_000 steps", True),
        ("at most 1 per 1_000 steps", False),
    ],
)
def test_rollbacks_of_a_child_are_no_closer_than_its_parents(tmp_path: Path, limit: str, looser: bool) -> None:
    child = f'lbw 1 policy mine {{ extends "parent.lbw" }} limits {{ rollback at most 20 steps back, {limit} }}'
    texts = {"mine.lbw": child, "parent.lbw": SPACED}
    assert [code for code, _, _ in found(tmp_path, texts)] == (["LBW607"] if looser else [])


# Tightening is a partial order


@given(limit_sets())
def test_limits_are_no_looser_than_themselves(limits: p.Limits) -> None:
    assert loosenings(limits, limits) == ()


@settings(deadline=None)
@given(limit_sets(), limit_sets(), limit_sets())
def test_tightening_is_transitive_and_antisymmetric(one: p.Limits, two: p.Limits, three: p.Limits) -> None:
    for a, b, c in itertools.permutations((one, two, three)):
        if not loosenings(a, b) and not loosenings(b, c):
            assert not loosenings(a, c)
    if not loosenings(one, two) and not loosenings(two, one):
        assert in_effect(one) == in_effect(two)


def in_effect(limits: p.Limits) -> p.Limits:
    """Return limits with the distance in time that rollbacks keep: one per W steps is a distance, too."""
    rollback = limits.rollback
    if rollback is None:
        return limits
    apart = max(rollback.spacing, rollback.budget.window if rollback.budget.count == 1 else 1)
    return evolve(limits, rollback=evolve(rollback, spacing=apart))


@given(limit_sets())
def test_nothing_is_tighter_than_no_limits_at_all(limits: p.Limits) -> None:
    """Only the budget of all interventions together, and that of the guard's own time, are one more promise."""
    assert loosenings(p.Limits(), evolve(limits, intervene=None, overhead=None)) == ()
    assert {found.allowed for found in loosenings(limits, p.Limits())} <= {None}


def test_every_kind_of_limit_is_compared() -> None:
    budget = p.Budget(1, 10)
    full = p.Limits(
        scale_lr=p.ScaleLimit(0.5, 0.6), skip=p.SkipLimit(1, budget), clip=budget, rollback=p.RollbackLimit(1, budget),
        freeze=p.FreezeLimit(0.1, 1), reset_moments=budget, checkpoint=budget, intervene=budget, overhead=0.02,
        custom=(p.CustomLimit("mine", 0.0, 1.0, budget),),
    )  # fmt: skip
    for attribute in fields(p.Limits):
        less = evolve(full, **{attribute.name: () if attribute.name == "custom" else attribute.default})
        if attribute.name == "halt":
            assert loosenings(full, evolve(full, halt=False))
        elif attribute.name in ("intervene", "overhead"):
            assert [found.name for found in loosenings(less, full)] == [attribute.name]
        elif attribute.name != "clip":  # which `intervene` allows too
            assert [found.name for found in loosenings(full, less)] in ([attribute.name], ["mine"])


events = st.lists(st.integers(0, 40), max_size=25).map(sorted)
small = st.builds(p.Budget, st.integers(1, 6), st.integers(1, 20))


def keeps(ticks: list[int], budget: p.Budget) -> bool:
    return all(sum(at <= tick < at + budget.window for tick in ticks) <= budget.count for at in ticks)


@given(small, small, events)
def test_what_keeps_a_stricter_budget_keeps_the_looser_one(child: p.Budget, parent: p.Budget, ticks: list[int]) -> None:
    if implies(child, parent) and keeps(ticks, child):
        assert keeps(ticks, parent)


@given(small, small)
def test_a_budget_that_is_refused_has_a_history_that_breaks_the_parents(child: p.Budget, parent: p.Budget) -> None:
    bursts = [at for at in range(0, parent.window, child.window) for _ in range(child.count)]

    assert keeps(bursts, child)
    assert keeps(bursts, parent) == implies(child, parent)
