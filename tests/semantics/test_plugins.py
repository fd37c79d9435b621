"""Plugins are found by their entry points, typed and limited like built-ins; a broken one is a diagnostic."""

from __future__ import annotations

import math
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lbw_policy.errors import AttachError
from lbw_policy.machine import Session
from lbw_policy.plugins import FunctionPlugin
from lbw_policy.risk import RiskModel
from lbw_policy.semantics import check, load, plugins
from lbw_policy.semantics import policy as p

CODE = """
from lbw_policy.plugins import ActionPlugin, FunctionPlugin, SignalPlugin

def wrong(value):
    raise ValueError(value)

spectral = SignalPlugin("spectral_norm", "norm", "model", "largest singular value", lambda context: 1.0)
no_unit = SignalPlugin("no_unit", "parsec", "model", "", lambda context: 1.0)
no_need = SignalPlugin("no_need", "norm", "luck", "", lambda context: 1.0)
squash = FunctionPlugin("squash", "ratio", lambda x: x / (1 + abs(x)), "squeezes into (-1, 1)")
raising = FunctionPlugin("raising", None, wrong, "always raises")
median = FunctionPlugin("median", None, abs, "clashes")
other = FunctionPlugin("other_name", None, abs, "calls itself something else")
uncallable = FunctionPlugin("uncallable", None, 3, "no function")
boost = ActionPlugin("boost_decay", "ratio", lambda context: None, "raises the weight decay")
wait = ActionPlugin("wait", None, lambda context: None, "waits")
warm = ActionPlugin("warm", "steps", lambda context: None, "warms up again")
number = 3
"""
ENTRIES = """
[lbw_policy.signals]
spectral_norm = fake_plugins:spectral
no_unit = fake_plugins:no_unit
no_need = fake_plugins:no_need

[lbw_policy.functions]
squash = fake_plugins:squash
raising = fake_plugins:raising
midian = fake_plugins:median
misnamed = fake_plugins:other
uncallable = fake_plugins:uncallable
absent = fake_plugins:absent
missing_module = no_such_module_anywhere:x
wrong_type = fake_plugins:number
crashing = crashing_plugin:x
leaving = leaving_plugin:x
an_action = fake_plugins:wait

[lbw_policy.actions]
boost_decay = fake_plugins:boost
wait = fake_plugins:wait
warm = fake_plugins:warm
"""
DOUBLE = "[lbw_policy.functions]\ntwice = fake_plugins:squash\n"


def install(folder: Path, name: str, entries: str, **modules: str) -> None:
    """Make a folder look like one that a package is installed in."""
    metadata = folder / f"{name}-1.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(entries)
    for module, code in modules.items():
        (folder / f"{module}.py").write_text(code)


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder on the path with fake installed packages."""
    crash, leave = "raise RuntimeError('it\\nbroke')", "raise SystemExit(3)"
    install(tmp_path, "fake_plugins", ENTRIES, fake_plugins=CODE, crashing_plugin=crash, leaving_plugin=leave)
    install(tmp_path, "double_one", DOUBLE)
    install(tmp_path, "double_two", DOUBLE.replace("squash", "raising"))
    monkeypatch.syspath_prepend(str(tmp_path))
    plugins.forget()
    yield tmp_path
    for module in ("fake_plugins", "crashing_plugin", "leaving_plugin"):
        sys.modules.pop(module, None)
    plugins.forget()


def policy(*lines: str) -> str:
    return "\n".join(("lbw 1", "policy mine { }", "signal grad = telemetry.grad_norm", *lines))


def codes(*lines: str) -> list[tuple[str, str]]:
    return [(finding.code, finding.message) for finding in check(policy(*lines)).diagnostics]


BOOST = "boost_decay within [0.5, 2], at most 3 per 100 steps"


def test_a_policy_uses_plugins_like_built_ins(site: Path) -> None:
    found = load(
        policy(
            "signal norm = telemetry.spectral_norm { every 20 steps }",
            "let odd = norm / median(norm, 200 steps)",
            "reflex r { when squash(odd) > 0.9 do boost_decay with odd do wait do warm with 5 steps }",
            f"limits {{ {BOOST} wait at most 1 per 10 steps warm within [1 step, 9 steps], at most 1 per 9 steps }}",
        )
    )

    assert [limit.name for limit in found.limits.custom] == ["boost_decay", "wait", "warm"]
    assert found.limits.custom[0] == p.CustomLimit("boost_decay", 0.5, 2.0, p.Budget(3, 100))
    assert [p.name_of(action) for action in found.reflexes[0].actions] == ["boost_decay", "wait", "warm"]


def test_what_a_plugin_is_asked_for_reaches_the_limiter(site: Path) -> None:
    text = policy(
        "reflex r { when squash(grad / 1) > 0.9 do boost_decay with grad / grad * 4 }", f"limits {{ {BOOST} }}"
    )
    session = Session(load(text.replace("grad / 1", "zscore(grad, 64 steps)")))
    for tick in range(100):
        session.begin({"grad": 1.0 + tick % 3})
        session.decide({})
        session.finish(applied=True)
    session.begin({"grad": 1e6})
    (grant,) = session.decide({}).granted

    assert (grant.request.action, grant.request.amount, grant.amount) == ("boost_decay", 4.0, 2.0)


@pytest.mark.parametrize(
    ("line", "code", "message"),
    [
        ("let x = squach(grad)", "LBW207", "unknown function `squach`"),
        ("signal x = telemetry.spectral_nrm", "LBW222", "unknown signal `spectral_nrm`"),
        ("reflex r { when grad > 4 do boost_dekay with 1 }", "LBW225", "unknown action `boost_dekay`"),
        ("reflex r { when grad > 4 do boost_decay with 1 }", "LBW301", "`boost_decay` is used without a limit"),
        (
            f"limits {{ {BOOST} }} reflex r {{ when grad > 4 do boost_decay }}",
            "LBW702",
            "`boost_decay` takes an amount",
        ),
        (
            "limits { wait at most 1 per 9 steps } reflex r { when grad > 4 do wait with 3 }",
            "LBW702",
            "`wait` takes no amount",
        ),
        (
            f"limits {{ {BOOST} }} reflex r {{ when grad > 4 do boost_decay with grad }}",
            "LBW204",
            "expected a ratio, found a norm",
        ),
        (
            "limits { boost_decay at most 1 per 9 steps }",
            "LBW703",
            "`boost_decay` takes an amount: expected a range in its limit",
        ),
        (
            "limits { wait within [0, 1], at most 1 per 9 steps }",
            "LBW703",
            "`wait` takes no amount: expected no range in its limit",
        ),
        (
            "limits { boost_decay within [2, 1], at most 1 per 9 steps }",
            "LBW302",
            "expected the lower bound first, found [2, 1]",
        ),
        ("limits { warm within [1, 9 steps], at most 1 per 9 steps }", "LBW204", "expected a number of steps"),
        ("let x = squash(grad) > grad", "LBW204", "cannot compare a ratio with a norm"),
        ("let x = squash(grad, 9 steps)", "LBW208", "`squash` takes 1 argument, found 2"),
    ],
)
def test_a_wrong_use_is_an_error(site: Path, line: str, code: str, message: str) -> None:
    assert (code, message) in codes(line)


def test_names_of_plugins_are_suggested(site: Path) -> None:
    advice = {
        line: check(policy(line)).diagnostics[0].help
        for line in ("let x = squach(grad)", "limits { wiat at most 1 per 9 steps }")
    }

    assert list(advice.values()) == ["did you mean `squash`?", "did you mean `wait`?"]


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("midian", "`median` is built in"),
        ("misnamed", "the plugin calls itself `other_name`"),
        ("uncallable", "`evaluate` cannot be called"),
        ("absent", "it cannot be imported: AttributeError: module 'fake_plugins' has no attribute 'absent'"),
        ("missing_module", "it cannot be imported: ModuleNotFoundError: No module named 'no_such_module_anywhere'"),
        ("wrong_type", "expected a `FunctionPlugin`, found a `int`"),
        ("an_action", "expected a `FunctionPlugin`, found a `ActionPlugin`"),
        ("crashing", "it cannot be imported: RuntimeError: it broke"),
        ("leaving", "it cannot be imported: SystemExit: 3"),
        ("twice", "`fake_plugins:squash` is registered under the same name"),
    ],
)
def test_a_broken_plugin_is_a_finding_where_it_is_used(site: Path, name: str, reason: str) -> None:
    (finding, *_) = check(policy(f"let x = {name}(grad)")).diagnostics

    assert (finding.code, finding.message) == ("LBW701", f"the plugin `{name}` cannot be used: {reason}")
    assert finding.span is not None
    assert finding.source.text[finding.span.start : finding.span.end] == name
    assert (finding.help or "").startswith(f"its entry point is `{name} = ")


@pytest.mark.parametrize(("name", "reason"), [("no_unit", "unknown unit `parsec`"), ("no_need", "found `luck`")])
def test_a_broken_signal_is_a_finding(site: Path, name: str, reason: str) -> None:
    ((code, message), *_) = codes(f"signal x = telemetry.{name}")

    assert code == "LBW701"
    assert reason in message


def test_plugins_that_a_policy_does_not_use_are_not_imported(site: Path) -> None:
    load(policy("let x = log(grad / 1)"))
    load("lbw 1 policy p { extends conservative }")

    assert "fake_plugins" not in sys.modules


@pytest.mark.parametrize("evaluate", [lambda _: "3", lambda _: None, lambda _: 1j, lambda _: 10**400, math.log, len])
def test_what_a_function_cannot_answer_is_not_a_number(evaluate: Callable[[float], float]) -> None:
    assert math.isnan(FunctionPlugin("f", None, evaluate, "")(-1.0))


@given(st.floats())
def test_a_function_sees_finite_numbers_only(value: float) -> None:
    seen: list[float] = []
    FunctionPlugin("f", None, lambda x: seen.append(x) or 1.0, "")(value)

    assert all(map(math.isfinite, seen))
    assert bool(seen) == math.isfinite(value)


def test_a_function_that_raises_makes_its_condition_unknown(site: Path) -> None:
    session = Session(
        load(
            policy(
                "reflex r { when raising(grad) > 3 do skip }",
                "limits { skip at most 1 in a row, at most 1 per 9 steps }",
            )
        )
    )
    session.begin({"grad": 1.0})

    assert session.decide({}).decision.fired == ("r",)


def test_a_child_may_not_loosen_the_limit_of_a_plugin(site: Path, tmp_path: Path) -> None:
    (tmp_path / "parent.lbw").write_text(policy(f"limits {{ {BOOST} }}"))
    for line, code in (
        (BOOST, []),
        ("boost_decay within [0.6, 1.9], at most 2 per 100 steps", []),
        ("boost_decay within [0.4, 2], at most 3 per 100 steps", ["LBW607"]),
        ("boost_decay within [0.5, 2], at most 4 per 100 steps", ["LBW607"]),
        ("wait at most 1 per 9 steps", ["LBW608"]),
    ):
        (tmp_path / "child.lbw").write_text(f'lbw 1 policy c {{ extends "parent.lbw" }} limits {{ {line} }}')
        found = [finding.code for finding in check(tmp_path / "child.lbw").diagnostics]
        assert [code for code in found if code.startswith("LBW6")] == code, line


def test_lbw_check_needs_no_torch_for_a_plugin_that_needs_none(site: Path) -> None:
    path = site / "p.lbw"
    path.write_text(policy("let x = squash(grad) > 0.5", 'alert a info when x "x"'))
    script = (
        "import sys; from lbw_policy.cli.check import main; code = main(sys.argv[1:]); "
        "print(code, 'fake_plugins' in sys.modules, [m for m in ('torch', 'river', 'numpy') if m in sys.modules])"
    )
    environment = {**os.environ, "PYTHONPATH": str(site)}
    found = subprocess.run(
        [sys.executable, "-c", script, path], capture_output=True, text=True, env=environment, check=False
    )

    assert found.stdout.splitlines()[-1] == "0 True []", found.stdout + found.stderr


def test_the_package_in_the_document_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (Path(__file__).parents[2] / "docs" / "reuse.md").read_text(encoding="utf-8")
    code, project, text = (
        re.findall(rf"^```{kind}\n(.*?)^```", page, re.MULTILINE | re.DOTALL)[-1] for kind in ("python", "toml", "text")
    )
    groups = tomllib.loads(project)["project"]["entry-points"]
    entries = "".join(
        f"[{group}]\n" + "".join(f"{name} = {value}\n" for name, value in names.items())
        for group, names in groups.items()
    )
    install(tmp_path, "my_plugins", entries, my_plugins=code)
    monkeypatch.syspath_prepend(str(tmp_path))
    plugins.forget()

    assert check(text).diagnostics == ()
    assert [limit.name for limit in load(text).limits.custom] == ["set_weight_decay"]
    plugins.forget()


RISK = "risk r { horizon 10 steps features standard model MODEL alarm at most 1 false per 9 steps trust after 9 steps }"
MODELS = """
[lbw_policy.models]
counting = fake_models:model
useless = fake_models:useless
gone = fake_models:nothing
"""
MODEL_CODE = """
from lbw_policy.plugins import ModelPlugin

def crash(seed):
    raise OSError("no such thing")

class Quiet:
    informed = True
    def predict(self, features): return 0.125
    def learn(self, features, diverged): pass
    def drivers(self, features): return []
    def load_prior(self, prior): pass
    def state_dict(self): return {}
    def load_state_dict(self, state): pass

model = ModelPlugin("counting", lambda seed: Quiet(), "says one eighth")
useless = ModelPlugin("useless", crash, "cannot be made")
"""


@pytest.fixture
def models(site: Path) -> Iterator[Path]:
    install(site, "fake_models", MODELS, fake_models=MODEL_CODE)
    plugins.forget()
    yield site
    sys.modules.pop("fake_models", None)


def test_a_risk_uses_a_model_of_a_plugin(models: Path) -> None:
    (risk,) = load(policy(RISK.replace("MODEL", "counting"))).risks
    model = RiskModel(risk)
    for tick in range(20):
        said = model.assess(tick, {"loss": 1.0 + tick % 3, "grad_norm": 1.0}, {})
        model.learn(tick, 1.0, finite=True, intervened=False)
    assert said.raw == 0.125


def test_a_model_that_is_not_there_or_broken_is_reported(models: Path) -> None:
    ((code, message),) = codes(RISK.replace("MODEL", "countin"))
    assert (code, message) == ("LBW214", "unknown risk model `countin`")
    ((code, message),) = codes(RISK.replace("MODEL", "gone"))
    assert code == "LBW701"
    assert "cannot be imported" in message


def test_a_model_that_cannot_be_made_is_told_when_attached(models: Path) -> None:
    (risk,) = load(policy(RISK.replace("MODEL", "useless"))).risks
    with pytest.raises(AttachError, match=r"`useless` of a plugin cannot be made: OSError: no such thing"):
        RiskModel(risk)
