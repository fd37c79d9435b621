"""Which policies and optimizers fit the device tier, and which are refused, with every reason."""

from __future__ import annotations

import pytest
from torch import optim

import lbw_policy as lbw
from lbw_policy.resources import presets
from tests.runtime.device_runs import fused
from tests.runtime.loops import acted, at, policy, small, train

SKIPS = "reflex broken { when not finite(loss) do skip }"


@pytest.mark.parametrize(
    ("rules", "reason"),
    [
        ("reflex a { when not finite(loss) do halt }", "reflex `a` does `halt`, which the host must do"),
        ("reflex a { when not finite(loss) do skip else halt }", "does `skip` else `halt`, and only the host knows"),
        ("reflex a { when log(loss) > 3 do skip }", "takes `log` of a present reading"),
        ("reflex a { when slope(loss, 32 steps) > 3 do skip }", "takes `slope` of a present reading"),
        ("reflex a { when loss > 3 do clip layers to 1 }", "does `clip layers`, which needs each layer's norm"),
        (
            "signal update = telemetry.update_ratio reflex a { when update > 3 do skip }",
            "reads the built-in signal `update_ratio` in every tick, which the host computes",
        ),
        (
            'layers first = "*" signal part = telemetry.grad_norm of first reflex a { when part > 3 do skip }',
            "reads the built-in signal `grad_norm of first` in every tick, which the host computes",
        ),
        (
            "risk r { horizon 5 steps features standard alarm at most 1 false per 100 steps trust after 20 steps "
            "model logistic fallback 0% } reflex a { when r > 30% do skip }",
            "reads the risk `r`, which the host computes",
        ),
    ],
)
def test_what_does_not_fit_is_refused_with_the_reflex_and_the_reason(rules: str, reason: str) -> None:
    with pytest.raises(lbw.AttachError) as caught:
        fused(rules)
    assert str(caught.value).startswith("policy `p` does not fit the device tier: reflex `a` ")
    assert reason in str(caught.value)


def test_an_optimizer_that_is_not_fused_is_refused_for_what_needs_its_kernels_only() -> None:
    model, optimizer = small()
    with pytest.raises(lbw.AttachError, match="reflex `a` does `skip`, and `AdamW` is not fused"):
        lbw.attach(optimizer, policy("reflex a { when not finite(loss) do skip }"), tier="device")
    guard = lbw.attach(optimizer, policy("reflex a { when grad > 0.1 do clip to 0.1 }"), tier="device")
    train(model, optimizer, range(5), guard)
    guard.catch_up()
    assert acted(guard, "clip") == [0, 1, 2, 3, 4]


def test_every_reason_is_named() -> None:
    with pytest.raises(lbw.AttachError) as caught:
        fused("reflex a { when log(loss) > 3 do halt } reflex b { when slope(grad, 32 steps) > 0 do skip }")
    assert str(caught.value).count("reflex `a`") == 2
    assert str(caught.value).count("reflex `b`") == 1


def test_tiers_are_known_by_name_and_auto_is_the_host_on_a_cpu() -> None:
    with pytest.raises(lbw.AttachError, match="expected tier `auto`, `host` or `device`, found `gpu`"):
        fused(SKIPS, tier="gpu")
    *_, guard = fused(SKIPS, tier="auto")
    assert (guard.tier, guard.summary().tier) == ("host", "host")
    assert "tier host" in str(guard.summary())


@pytest.mark.parametrize(
    "condition",
    ["log(lr) > 3", "log(median(loss, 32 steps)) > 3", "slope(lr, 32 steps) > 9", "rate(skips, 9 steps) > 3"],
)
def test_what_hangs_on_no_present_reading_fits(condition: str) -> None:
    model, optimizer, guard = fused(
        f"signal lr = telemetry.lr reflex a {{ when {condition} do skip }} "
        "reflex b { when loss > 8 * median(loss, 32 steps) do skip }"
    )
    train(model, optimizer, range(40), guard, at([30, 31], 1e3))
    assert guard._left is not None
    assert guard.summary().actions == {"skip": {"granted": 2}}


@pytest.mark.parametrize("name", sorted({*presets()} - {"mixture_of_experts"}))
def test_a_shipped_preset_fits(name: str) -> None:
    model, optimizer = small(lambda held, **given: optim.AdamW(held, fused=True, **given), lr=1e-4)
    guard = lbw.attach(optimizer, name, model=model, tier="device")
    train(model, optimizer, range(90), guard, at([70], 1e4))
    assert guard._left is not None
    assert guard.summary().actions.get("skip", {}) == ({} if name == "monitor" else {"granted": 1})
    assert guard._failures == 0
