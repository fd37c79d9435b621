"""The check of plugins: each way to break the contract is found, and what keeps it is left alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
import torch

from lbw_policy.conformance import Finding, assert_conforms, check, check_action, check_function, check_signal, worlds
from lbw_policy.conformance.pictures import Picture, changes
from lbw_policy.plugins import ActionContext
from lbw_policy.semantics.plugins import Plugin
from tests.conformance import sample_plugins as samples

EVERYWHERE = {
    "another tensor",
    "breaks the update that follows",
    "raises on sparse gradients",
    "changes the weights",
}
"""Faults that show in some settings only, or that are told apart there; the others are looked for in one run."""


def cases(table: Mapping[str, Any]) -> list[Any]:
    found = [(name, *(one if isinstance(one, tuple) else (one, name))) for name, one in table.items()]
    return [pytest.param(name, plugin, what, id=name) for name, plugin, what in found]


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    samples.kept.clear()
    yield
    samples.kept.clear()


def whats(name: str, plugin: object, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    if name not in EVERYWHERE:
        monkeypatch.setattr(worlds, "RUNS", worlds.RUNS[:1])
    return [finding.what for finding in check(plugin)]


@pytest.mark.parametrize("plugin", samples.GOOD, ids=lambda plugin: plugin.name)
def test_a_plugin_that_keeps_its_contract_is_clean(plugin: object) -> None:
    assert check(plugin) == ()


@pytest.mark.parametrize(("name", "plugin", "what"), cases(samples.BAD_SIGNALS))
def test_each_fault_of_a_signal_is_found(name: str, plugin: Plugin, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert whats(name, plugin, monkeypatch) == [what]


@pytest.mark.parametrize(("name", "plugin", "what"), cases(samples.BAD_ACTIONS))
def test_each_fault_of_an_action_is_found(
    name: str, plugin: Plugin, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert what in whats(name, plugin, monkeypatch)


@pytest.mark.parametrize(("name", "plugin", "what"), cases(samples.BAD_FUNCTIONS))
def test_each_fault_of_a_function_is_found(
    name: str, plugin: Plugin, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert whats(name, plugin, monkeypatch) == [what]


@pytest.mark.parametrize(("name", "plugin", "what"), cases(samples.BAD_DECLARATIONS))
def test_each_fault_of_a_declaration_is_found(
    name: str, plugin: Plugin, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert what in whats(name, plugin, monkeypatch)


def test_actions_are_called_with_both_ends_of_their_amounts_and_nothing_else() -> None:
    amounts = set()

    def note(context: ActionContext) -> None:
        amounts.add(context.amount)

    assert check_action(samples.evolve(samples.ACTION, apply=note), (-0.5, 0.25)) == ()
    assert amounts == {-0.5, 0.25}


@pytest.mark.parametrize("amounts", [(1.0, 0.0), (0.0, float("nan")), (float("-inf"), 0.0)])
def test_a_range_that_no_policy_could_have_is_refused(amounts: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="two finite amounts, the lower first"):
        check_action(samples.ACTION, amounts)


def test_what_is_no_plugin_is_a_finding() -> None:
    (finding,) = check(len)

    assert finding.what == "is no plugin"


def test_the_assertion_names_the_plugin_and_every_finding() -> None:
    bad = samples.evolve(samples.FUNCTION, meaning="", evaluate=str)

    with pytest.raises(AssertionError) as caught:
        assert_conforms(bad)

    assert_conforms(samples.FUNCTION)
    assert str(caught.value).splitlines()[0] == "the plugin `squash` does not conform"
    assert [line.strip() for line in str(caught.value).splitlines()[1:]] == [str(one) for one in check(bad)]


def test_each_kind_has_its_own_door() -> None:
    assert check_signal(samples.GOOD[3]) == ()  # type: ignore[arg-type]
    assert check_function(samples.FUNCTION) == ()
    assert str(Finding("raises", "always")) == "raises: always"


@pytest.mark.parametrize("setting", list(worlds.settings()), ids=str)
def test_two_worlds_of_a_setting_are_the_same_and_can_go_on(setting: worlds.Setting) -> None:
    before = torch.get_rng_state()
    one, other = worlds.build(setting), worlds.build(setting)
    parts = ("weights", "gradients", "state", "lr", "options", "modes")

    assert list(changes(Picture.of(one), Picture.of(other), parts)) == []
    assert torch.equal(torch.get_rng_state(), before)
    one.optimizer.step()
