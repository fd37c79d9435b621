"""The contract of risk models: bounded answers, one seed one answer, plain memory of bounded size that restores."""

from __future__ import annotations

import json
import math
import random
from collections.abc import Iterator, Mapping
from typing import Any

from lbw_policy.conformance.findings import Findings, raised
from lbw_policy.conformance.pictures import same
from lbw_policy.semantics.plugins import ModelPlugin

MOST_BYTES = 1_000_000
"""No state may be larger as JSON."""
LABELS = 600
_NAMES = ("standard.loss_surprise", "standard.update_level", "standard.grad_trend", "own")
_METHODS = ("predict", "learn", "drivers", "load_prior", "state_dict", "load_state_dict")
_DAMAGED: tuple[object, ...] = (None, 3, [], {"weights": "high"}, {"version": math.nan})
_FAILED = object()
Features = Mapping[str, float]


def check_model(plugin: ModelPlugin, findings: Findings) -> None:
    """Find what a risk model does that its contract forbids."""
    one, twin = (_made(plugin, findings) for _ in range(2))
    if one is _FAILED or twin is _FAILED:
        return
    if not _has_methods(one, findings):
        return
    _check_corners(one, findings)
    _live(one, twin, findings)
    if not findings.all():
        _check_state(plugin, one, findings)


def _made(plugin: ModelPlugin, findings: Findings) -> Any:  # noqa: ANN401 - foreign objects
    try:
        return plugin.make(1)
    except (Exception, SystemExit) as error:
        findings.add("cannot be made", f"`make(1)` raised {raised(error)}")
        return _FAILED


def _has_methods(model: Any, findings: Findings) -> bool:  # noqa: ANN401
    missing = [name for name in _METHODS if not callable(getattr(model, name, None))]
    if missing:
        findings.add("lacks a method", f"expected `{missing[0]}`; see `lbw_policy.risk.Model`")
    if not isinstance(getattr(model, "informed", None), bool):
        findings.add("does not say whether it is informed", "expected `informed` to be true or false")
    return not findings.all()


def _check_corners(model: Any, findings: Findings) -> None:  # noqa: ANN401
    """Ask before anything was learned, with nothing, and with features at their bounds."""
    for features in ({}, dict.fromkeys(_NAMES, 0.0), dict.fromkeys(_NAMES, 8.0), {"new": -8.0}):
        _ask(model, features, "before any label", findings)


def _stream() -> Iterator[tuple[dict[str, float], bool]]:
    """Yield labelled ticks: a hundred quiet ones, then one in twenty positive; features come, go, or are constant."""
    dice = random.Random(0)  # noqa: S311 - repeatable, and no secret hangs on it
    for number in range(LABELS):
        positive = number > 100 and number % 20 == 0
        features = {
            name: max(min(dice.gauss(3.0 * positive, 1.0), 8.0), -8.0) for name in _NAMES if dice.random() < 0.9
        }
        yield {**features, "constant": 1.0}, positive


def _live(one: Any, twin: Any, findings: Findings) -> None:  # noqa: ANN401
    for number, (features, positive) in enumerate(_stream()):
        where = f"after {number} labels"
        first = _ask(one, features, where, findings)
        if not same(first, _ask(one, features, where, findings)):
            findings.add("learns when asked", f"{where}: the same question had two answers; it learns by `learn` only")
        if not same(first, _ask(twin, features, where, findings)):
            findings.add("answers differently for one seed", f"{where}: two models of one seed disagree")
        for model in (one, twin):
            _teach(model, features, positive, where, findings)
        if findings.all():
            return
    _check_drivers(one, findings)


def _ask(model: Any, features: Features, where: str, findings: Findings) -> object:  # noqa: ANN401
    try:
        found = model.predict(dict(features))
        number = float(found)
    except (Exception, SystemExit) as error:
        findings.add("raises", f"`predict` {where}: {raised(error)}")
        return _FAILED
    if not 0.0 <= number <= 1.0:
        findings.add("answers with no probability", f"{where}: expected a number in [0, 1], found {found!s:.40}")
    return number


def _teach(model: Any, features: Features, positive: bool, where: str, findings: Findings) -> None:  # noqa: ANN401
    try:
        model.learn(dict(features), positive)
    except (Exception, SystemExit) as error:
        findings.add("raises", f"`learn` {where}: {raised(error)}")


def _check_drivers(model: Any, findings: Findings) -> None:  # noqa: ANN401
    try:
        found = [(str(name), float(share)) for name, share in model.drivers(dict.fromkeys(_NAMES, 2.0))]
    except (Exception, SystemExit) as error:
        findings.add(
            "cannot say what drives it", f"`drivers` raised {raised(error)}; expected pairs of name and number"
        )
        return
    if any(math.isnan(share) for _, share in found):
        findings.add("cannot say what drives it", "`drivers` gave NaN")


def _check_state(plugin: ModelPlugin, model: Any, findings: Findings) -> None:  # noqa: ANN401
    try:
        text = json.dumps(model.state_dict(), allow_nan=False)
        again = plugin.make(2)
        again.load_state_dict(json.loads(text))
    except (Exception, SystemExit) as error:
        findings.add(
            "has no plain state", f"{raised(error)}; expected finite numbers, texts, lists and dicts that restore it"
        )
        return
    if len(text) > MOST_BYTES:
        findings.add("has a large state", f"{len(text):_} bytes as JSON after {LABELS} labels, at most {MOST_BYTES:_}")
    _compare(model, again, findings)
    for damaged in _DAMAGED:
        try:
            plugin.make(1).load_state_dict(damaged)
        except ValueError:  # StateError is one
            continue
        except (Exception, SystemExit) as error:
            findings.add("fails on a damaged state", f"{damaged!s:.40}: {raised(error)}; expected a `StateError`")
        else:
            if json.loads(text) not in ({}, []):
                findings.add("takes a damaged state", f"{damaged!s:.40}: expected a `StateError`")


def _compare(model: Any, again: Any, findings: Findings) -> None:  # noqa: ANN401
    """Let both go on: a run that is resumed must decide as if it had not been stopped."""
    for features, positive in list(_stream())[:100]:
        answers = [_ask(each, features, "after it was restored", findings) for each in (model, again)]
        if not same(*answers):
            findings.add(
                "is not restored", f"the restored model answers {answers[1]!s:.40}, the other {answers[0]!s:.40}"
            )
        for each in (model, again):
            _teach(each, features, positive, "after it was restored", findings)
