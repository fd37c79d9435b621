"""Expressions are spelt as a policy would write them: what is spelt can be read back."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from lbw_policy.semantics import Policy, load
from lbw_policy.semantics.expressions import Statistic
from lbw_policy.semantics.spelling import Vocabulary, amount, share, spell
from lbw_policy.semantics.walk import conditions_of, parts
from tests.texts import policy_texts

HEAD = "lbw 1\npolicy p { }\nsignal loss = telemetry.loss\nsignal grad = telemetry.grad_norm { every 10 steps }\n"


def condition(text: str, before: str = "") -> str:
    policy = load(f'{HEAD}{before}alert x info when {text} "x"')
    return spell(conditions_of(policy)[0], Vocabulary.of(policy))


@pytest.mark.parametrize(
    "text",
    [
        "loss > 2 * median(loss, 128 steps)",
        "2 * (loss + 1) > 1_000",
        "loss - (loss - 1) > -3",
        "loss / (loss / 2) > 0.1",
        "not (loss > 3)",
        "loss > 1 and loss > 2 and (loss > 3 or loss > 4)",
        "not finite(loss) or not (loss > 1 and loss > 2)",
        "grad > quantile(grad, 1_280 steps, 95%)",
        "prev(grad, 10 steps) > prev(grad, 20 steps)",
    ],
)
def test_a_condition_is_spelt_as_it_was_written(text: str) -> None:
    assert condition(text) == text


def test_a_let_goes_by_its_name() -> None:
    lets = "let high = loss / median(loss, 128 steps)\nlet bad = high > 3\n"
    assert condition("bad or 2 * high > 1", lets) == "bad or 2 * high > 1"


def test_a_let_that_only_renames_a_number_or_a_signal_is_not_read_into_others() -> None:
    assert condition("loss > 3", "let three = 3\nlet l = loss\n") == "loss > 3"


def test_a_let_is_spelt_out_where_it_is_defined() -> None:
    policy = load(f'{HEAD}let high = loss / median(loss, 9 steps)\nalert x info when high > 1 "x"')
    words = Vocabulary.of(policy)
    assert spell(policy.names[0][1], words.without(policy.names[0][1])) == "loss / median(loss, 9 steps)"


@settings(max_examples=60, deadline=None)
@given(policy_texts())
def test_what_is_spelt_reads_back_as_the_same_condition(text: str) -> None:
    policy = load(text)
    for index, node in enumerate(conditions_of(policy)):
        if any(isinstance(part, Statistic) and part.name == "slope" for part in parts(node)):
            continue  # a bare number there may have counted steps, and its unit is not kept
        for words in (Vocabulary.of(policy), Vocabulary(every=Vocabulary.of(policy).every)):
            again = load(f'{text}\nalert again_{index} info when {spell(node, words)} "x"')
            assert next(a for a in again.alerts if a.name == f"again_{index}").trigger.condition == node


@pytest.mark.parametrize(
    ("value", "text"), [(0.3, "30%"), (1 / 3, repr(1 / 3)), (0.0, "0%"), (1.0, "100%"), (1e-9, "1e-09")]
)
def test_a_share_is_a_percentage_where_that_is_exact(value: float, text: str) -> None:
    assert share(value) == text


@pytest.mark.parametrize(("value", "text"), [(1000.0, "1_000"), (0.1, "0.1"), (float("nan"), "nan"), (1e300, "1e+300")])
def test_an_amount_is_spelt_exactly(value: float, text: str) -> None:
    assert amount(value) == text


def test_a_checked_policy_keeps_the_names_of_its_lets_but_does_not_differ_by_them() -> None:
    one, other = (load(f'{HEAD}let {name} = 2 * loss\nalert x info when {name} > 1 "x"') for name in ("a", "b"))
    assert isinstance(one, Policy)
    assert [name for name, _ in one.names] == ["a"]
    assert one.alerts == other.alerts
