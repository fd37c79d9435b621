"""Policy texts drawn over the whole grammar; every new construct of the language is added here."""

from __future__ import annotations

from attrs import define, field
from hypothesis import strategies as st

from lbw_policy.semantics import load
from lbw_policy.semantics.policy import Policy
from lbw_policy.semantics.signals import SIGNALS

_WORDS_AS_NAMES = ("skip", "most", "top", "steps", "of", "by", "row", "model", "hold", "lbw", "clip", "halt", "false")
_UNITS_OF = {
    "telemetry.loss": "loss",
    "telemetry.grad_norm": "norm",
    "telemetry.param_norm": "norm",
    "telemetry.update_ratio": "ratio",
    "telemetry.activation_outliers": "ratio",
    "telemetry.lr": "rate",
    "telemetry.nonfinite_params": "count",
    "observed.router_spread": "number",
}
_GROUPED = tuple(f"telemetry.{name}" for name, kind in SIGNALS.items() if kind.grouped)
_LIMITS = (
    "scale_lr within [0.05, 1]",
    "skip at most 8 in a row, at most 40 per 1_000 steps",
    "clip at most 100 per 1_000 steps",
    "rollback at most 50 steps back, at most 3 per 1_000 steps, at least 20 steps apart",
    "freeze at most 25% of layers, for at most 200 steps",
    "reset_moments at most 1 per 1_000 steps",
    "checkpoint at most 3 per 1_000 steps",
    "intervene at most 150 per 1_000 steps",
    "overhead at most 2%",
)
_NO_EXCEPTION, _EXCEPTION = "", ' except "*.c"'
_NOTES = ("", "", '@why("drawn") ', '@why("so") @id("{}") ')


@define
class _Names:
    """What a growing policy text has declared so far."""

    draw: st.DrawFn
    taken: set[str] = field(factory=set)
    numbers: dict[str, list[str]] = field(factory=dict)
    """Names of signals by unit."""
    ratios: list[str] = field(factory=list)
    conditions: list[str] = field(factory=list)
    risks: list[str] = field(factory=list)
    windows: list[str] = field(factory=lambda: ["64 steps", "128 steps", "1_000 steps"])
    groups: list[str] = field(factory=list)

    def new(self) -> str:
        """Return a name that is not taken; now and then one that is also a word of the language."""
        odd = st.sampled_from(_WORDS_AS_NAMES) | st.from_regex(r"[A-Z_][a-z_0-9]{0,5}", fullmatch=True)
        name = self.draw(odd) if self.draw(st.integers(0, 3)) == 0 else "n"
        name = name if name not in self.taken else f"{name}_{len(self.taken)}"
        self.taken.add(name)
        return name

    def pick(self, *choices: str) -> str:
        """Return one of the choices."""
        return self.draw(st.sampled_from(choices))

    def signal(self) -> tuple[str, str]:
        """Return a signal and its unit."""
        unit = self.pick(*sorted(self.numbers))
        return self.pick(*self.numbers[unit]), unit

    def window(self) -> str:
        """Return the length of a window."""
        return self.pick(*self.windows)


def _same_unit(names: _Names, signal: str) -> str:
    """Return a number that has the unit of the signal."""
    window = names.window()
    plain = names.pick("median", "mean", "std", "min", "max", "ewma", "prev")
    return names.pick(
        signal,
        f"{plain}({signal}, {window})",
        f"{plain}(ewma({signal}, {window}), {window})",
        f"quantile({signal}, {window}, {names.pick('95%', '0.5', '0')})",
        f"prev({signal})",
        f"{names.pick('2', '0.5', '1e-3')} * {signal}",
        f"abs({signal} - {plain}({signal}, {window}))",
        f"(-{signal} + {names.pick('3', '1_000.5')})",
    )


def _ratio(names: _Names) -> str:
    """Return a number without a unit."""
    signal, _ = names.signal()
    window = names.window()
    choices = [
        f"{signal} / median({signal}, {window})",
        f"zscore({signal}, {window})",
        f"spread({signal}{names.pick('', f', {window}')})",
        f"log({signal})",
        f"slope(zscore({signal}, {window}), {window}) * {window}",
        f"{names.pick('lr_factor', f'mean(lr_factor, {window})')}",
        *names.ratios,
    ]
    return names.pick(*choices)


def _condition(names: _Names, depth: int = 2) -> str:
    """Return a condition."""
    if depth and names.draw(st.booleans()):
        left, right = _condition(names, depth - 1), _condition(names, depth - 1)
        return names.pick(f"{left} and {right}", f"{left} or {right}", f"not ({left})", f"({left})")
    signal, _ = names.signal()
    compare = names.pick("<", "<=", ">", ">=", "==", "!=")
    risks = [f"{risk}{end}" for risk in names.risks for end in (".alarm", ".trusted", " > 30%", ".probability < 0.2")]
    return names.pick(
        f"{_same_unit(names, signal)} {compare} {_same_unit(names, signal)}",
        f"{_ratio(names)} {compare} {names.pick('3', '-0.5', '1_000', '150%')}",
        f"finite({signal})",
        f"not finite({_ratio(names)})",
        f"rate({names.pick('interventions', 'skips', 'rollbacks', 'clips')}, {names.window()}) > 3",
        *names.conditions,
        *risks,
    )


def _hold(names: _Names) -> str:
    return names.pick("", " for 3 of 5 steps", " for 1 step", " for 20 steps")


def _repeated(names: _Names) -> str:
    """Return an action that is done at a moment, not held."""
    action = names.pick("skip", "scale_lr by 0.5", "rollback at most 50 steps", "checkpoint")
    return f"do {_or_else(names, action)}"


def _or_else(names: _Names, action: str) -> str:
    """Return an action, now and then with others to be done where it is refused."""
    others = ("skip", "scale_lr by 0.5", "rollback at most 9 steps", "checkpoint", "reset_moments", "clip to 2", "halt")
    free = [other for other in others if not action.startswith(other.split(maxsplit=1)[0])]
    chain = names.draw(st.permutations(free))[: names.draw(st.sampled_from((0, 0, 0, 1, 2, 3)))]
    return " else ".join([action, *chain])


def _note(names: _Names) -> str:
    """Return notes for a statement, or none."""
    return names.pick(*_NOTES).format(f"id-{len(names.taken)}-{names.new()}")


def _action(names: _Names) -> str:
    groups = names.pick("layers", *names.groups)
    norms = [f"2.5 * median({signal}, {names.window()})" for signal in names.numbers.get("norm", ())]
    restore = names.pick("", " restore over 20 steps")
    action = names.pick(
        "skip",
        "halt",
        f"clip to {names.pick('1', *norms)}",
        f"scale_lr by {names.pick('0.5', '50%', f'1 / ({_ratio(names)})')}{restore}",
        f"rollback at most {names.pick('50 steps', '1 step')}",
        "reset_moments",
        "checkpoint",
        f"freeze top {names.pick('10%', '0.25')} of {groups} by {names.pick('activation_variance', 'grad_norm')}",
    )
    return f"do {_or_else(names, action)}"


def _declarations(names: _Names) -> list[str]:
    lines = []
    for _ in range(names.draw(st.integers(0, 2))):
        name = names.new()
        if names.draw(st.booleans()):
            names.windows.append(name)
            lines.append(f"param {name} : steps in [32 steps, 1_000 steps] = 128 steps")
        else:
            names.ratios.append(f"2 * {name}")
            lines.append(f"param {name} : {names.pick('ratio', 'probability')} in [0, 1] = {names.pick('0.5', '50%')}")
    for _ in range(names.draw(st.integers(0, 1))):
        name = names.new()
        names.groups.append(name)
        lines.append(f'layers {name} = "*.a.*", "b"{names.pick(_NO_EXCEPTION, _EXCEPTION)}')
    sources = names.draw(st.lists(st.sampled_from(sorted(_UNITS_OF)), min_size=1, max_size=4))
    for source in sources:
        name = names.new()
        names.numbers.setdefault(_UNITS_OF[source], []).append(name)
        clauses = names.pick("", " { every 2 steps }", " { missing skip }", " { every 4 steps  missing hold 20 steps }",
                             " { missing unsafe  every 1 step }", " { }")  # fmt: skip
        over = names.pick("", *(f" of {group}" for group in names.groups)) if source in _GROUPED else ""
        lines.append(f"signal {name} = {source}{over}{clauses}")
    return lines


def _risk(names: _Names) -> tuple[str, str]:
    name, model = names.new(), names.pick("", "model logistic", "model baseline")
    features = names.pick("standard", f"standard, {_ratio(names)}", f"{_ratio(names)}, {names.signal()[0]}")
    clauses = [f"features {features}", "horizon 10 steps", "alarm at most 0.3 false per 1_000 steps",
               "trust after 200 steps", model, names.pick("", "fallback 0%", "fallback 0.05")]  # fmt: skip
    return f"risk {name} {{ {'  '.join(names.draw(st.permutations(clauses)))} }}", name


def _levels(names: _Names) -> list[str]:
    rungs = [names.new() for _ in range(names.draw(st.integers(1, 4)))]
    lines = [f"levels {' -> '.join(rungs)}"]
    for rung in rungs[1:]:
        clauses = [f"enter when {_condition(names)}{_hold(names)}", names.pick("", "cooldown 50 steps"),
                   names.pick("", "stay at most 200 steps"), names.pick("", "", "settles after 20 steps"),
                   names.pick("", f"leave when {_condition(names)}{_hold(names)}"),
                   *(_action(names) for _ in range(names.draw(st.integers(0, 2)))),
                   names.pick("", f"each 25 steps {_repeated(names)}")]  # fmt: skip
        lines.append(f"level {rung} {{ {'  '.join(names.draw(st.permutations(clauses)))} }}")
    return lines


def _requirements(names: _Names) -> list[str]:
    found = []
    for _ in range(names.draw(st.integers(0, 2))):
        otherwise = names.pick(
            f"{_hold(names)} else alert", f'{_hold(names)} else alert info "x"', f" else {_repeated(names)}"
        )
        found.append(f"{_note(names)}require {_condition(names)}{otherwise}")
    return found


def _trials(names: _Names) -> list[str]:
    found = []
    for _ in range(names.draw(st.integers(0, 2))):
        pieces = ("1.0 x 300", "nan", "-inf", "missing x 3", "ramp(1, 3) x 20", "noise(1, 0.1, seed 3) x 50", "2")
        series = ", ".join(names.draw(st.lists(st.sampled_from(pieces), min_size=1, max_size=4)))
        expect = names.pick(
            "skip at most 3 times",
            "no rollback",
            "halt 0 times",
            "scale_lr >= 0.01 throughout",
            "progress >= 0 at step 0",
        )
        title = f"drawn {len(names.taken)} {names.new()}"
        found.append(f'test "{title}" {{ given {names.signal()[0]} = {series}  expect {expect} }}')
    return found


def _body(names: _Names) -> list[str]:
    lines = _declarations(names)
    for _ in range(names.draw(st.integers(0, 3))):
        if names.draw(st.booleans()):
            value, kind = _ratio(names), names.ratios
        else:
            value, kind = _condition(names), names.conditions
        lines.append(f"let {names.new()} = {value}")
        kind.append(lines[-1].split()[1])
    for _ in range(names.draw(st.integers(0, 2))):
        line, name = _risk(names)
        names.risks.append(name)
        lines.append(line)
    for _ in range(names.draw(st.integers(0, 2))):
        lines.append(
            f"{_note(names)}reflex {names.new()} {{ when {_condition(names)} {_action(names)} "
            f"{names.pick('', 'do skip')} }}"
        )
    lines += _levels(names) if names.draw(st.booleans()) else []
    for _ in range(names.draw(st.integers(0, 2))):
        severity, shown = names.pick("info", "warning", "critical"), names.pick(names.signal()[0], *names.risks)
        lines.append(f'alert {names.new()} {severity} when {_condition(names)}{_hold(names)} "it is {{{shown}}}"')
    lines += _requirements(names) + _trials(names)
    return [*lines, f"limits {{ {' '.join(names.draw(st.permutations(_LIMITS)))} }}"]


@st.composite
def policy_texts(draw: st.DrawFn) -> str:
    """Draw a policy text without errors, over the whole grammar; it may have warnings."""
    names = _Names(draw)
    settings = ['doc "drawn"', "quarantine at most 64 steps", "snapshot every 20 steps", "on failure halt"]
    clauses = draw(st.lists(st.sampled_from(settings), unique=True))
    lines = draw(st.permutations([f"policy drawn {{ {' '.join(clauses)} }}", *_body(names)]))
    breaks = draw(st.lists(st.sampled_from(("\n", "\r\n", " ", "\n# a comment\n", "\t\n\n")), min_size=1, max_size=4))
    return "lbw 1\n" + "".join(line + breaks[index % len(breaks)] for index, line in enumerate(lines))


def policies() -> st.SearchStrategy[Policy]:
    """Draw a checked policy."""
    return policy_texts().map(load)
