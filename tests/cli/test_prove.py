"""`lbw prove` and `lbw-check --prove` as a user meets them: tables, counterexamples, certificates, scripts."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from functools import cache
from pathlib import Path

import jsonschema
import pytest
from attrs import evolve

import lbw_policy
from lbw_policy.claims import Claim, Result, Status
from lbw_policy.cli import check as checking
from lbw_policy.cli import proofs, prove
from lbw_policy.cli.main import main
from lbw_policy.verify import solver

SMALL = """lbw 1
policy small { doc "Skips broken batches." }
param most : ratio in [2, 50] = 6
signal loss = telemetry.loss
reflex broken { when not finite(loss) or loss / median(loss, 16 steps) > most  do skip }
limits { skip at most 4 in a row, at most 20 per 1_000 steps  intervene at most 20 per 1_000 steps }
"""
TORN = """lbw 1
policy torn { doc "A level that the same readings can enter and leave." }
signal loss = telemetry.loss
signal grad = telemetry.grad_norm
levels normal -> caution
level caution {
  enter when loss > 5  for 2 of 3 steps
  leave when grad < 3  for 2 steps
  stay at most 100 steps
  do scale_lr by 0.5
}
limits { scale_lr within [0.1, 1]  intervene at most 20 per 1_000 steps }
"""


@pytest.fixture(scope="module", autouse=True)
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Work in a folder with a policy whose promises hold, and one of which one does not."""
    home, here = Path.cwd(), tmp_path_factory.mktemp("prove")
    (here / "small.lbw").write_text(SMALL, encoding="utf-8")
    (here / "torn.lbw").write_text(TORN, encoding="utf-8")
    (here / "wrong.lbw").write_text(SMALL.replace("not finite(loss)", "not finite(lss)"), encoding="utf-8")
    os.chdir(here)
    lbw("prove", "small.lbw", "--certificate", "small.json")
    yield here
    os.chdir(home)
    told.cache_clear()


def lbw(*words: str) -> tuple[int, str, str]:
    """Run a command in this process; nothing that it prints is a traceback."""
    out, err = io.StringIO(), io.StringIO()
    with redirect_stdout(out), redirect_stderr(err):
        try:
            code = checking.main(words[1:]) if words[0] == "lbw-check" else main(words)
        except SystemExit as stop:
            code = int(stop.code or 0)
    assert "Traceback" not in err.getvalue()
    return code, out.getvalue(), err.getvalue()


told = cache(lbw)
"""`lbw`, for commands whose outcome does not change."""


# What is printed


def test_a_policy_whose_promises_hold_is_proved() -> None:
    code, out, err = told("prove", "small.lbw")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith("promises of `small` (")
    assert lines[1] == "  limits_hold"
    assert lines[2].split()[:5] == ["skip", "20", "per", "1_000", "steps"]
    assert " proved " in lines[2]
    assert lines[-1].startswith("small.lbw: 10 promises: 8 proved, 2 tested, in ")


def test_a_promise_that_fails_comes_first_with_its_run_and_with_help() -> None:
    code, out, err = told("prove", "small.lbw", "torn.lbw")
    assert (code, err) == (1, "")
    assert out.startswith("FAILED torn.lbw: no_conflict, level caution\n  promised: ")
    assert out.index("help: write `enter` and `leave` so that no readings meet both") < out.index("promises of `small`")
    assert out.splitlines()[-1].startswith("torn.lbw: ")
    assert "1 failed" in out.splitlines()[-1]


def test_the_printed_test_fails_in_the_policy_it_is_about(folder: Path) -> None:
    printed = told("prove", "torn.lbw")[1].partition("which fails:\n\n")[2].partition("\n\nhelp:")[0]
    (folder / "shown.lbw").write_text(TORN + printed, encoding="utf-8")
    assert printed.lstrip().startswith('test "')
    code, out, _ = lbw("test", "shown.lbw")
    assert code == 1
    assert "0 passed, 1 failed" in out


def test_verbose_tells_sentences_reasons_and_invariants() -> None:
    out = told("prove", "-v", "small.lbw")[1]
    assert "      no 1_000 steps in a row hold more than 20 skips\n      by induction\n      invariant: " in out


@pytest.mark.parametrize("words", [("small.lbw",), ("torn.lbw",), ("-v", "small.lbw")])
def test_no_line_is_wider_than_a_terminal(words: tuple[str, ...]) -> None:
    assert max(len(line) for line in told("prove", *words)[1].splitlines()) <= 80


def test_one_promise_can_be_asked_for() -> None:
    code, out, _ = told("prove", "torn.lbw", "--promise", "calm_returns")
    assert code == 0
    assert "no_conflict" not in out
    assert "  calm_returns\n    the policy" in out


def test_a_file_name_cannot_move_the_cursor(folder: Path) -> None:
    (folder / "a\x1b[2J.lbw").write_text(SMALL, encoding="utf-8")
    code, out, err = lbw("prove", "a\x1b[2J.lbw", "--no-solver")
    assert (code, "\x1b" in out + err) == (3, False)


SCHEMA = {
    "type": "object",
    "required": ["version", "policies"],
    "properties": {
        "version": {"const": 1},
        "policies": {
            "type": "array",
            "items": {
                "type": "object",
                "required": ["path", "policy", "digest", "solver", "promises", "summary"],
                "additionalProperties": False,
                "properties": {
                    "path": {"type": "string"},
                    "policy": {"type": "string"},
                    "digest": {"type": "string", "pattern": "^[0-9a-f]{64}$"},
                    "solver": {"type": ["string", "null"]},
                    "summary": {"type": "object", "additionalProperties": {"type": "integer"}},
                    "promises": {"type": "array", "items": {"$ref": "#/$defs/promise"}},
                },
            },
        },
    },
    "$defs": {
        "promise": {
            "type": "object",
            "additionalProperties": False,
            "required": ["promise", "about", "bound", "status", "how", "seconds", "invariants", "witness"],
            "properties": {
                "promise": {"enum": list(prove.PROMISES)},
                "about": {"type": "string"},
                "sentence": {"type": "string", "minLength": 1},
                "bound": {"type": ["number", "null"]},
                "unit": {"type": "string"},
                "status": {"enum": ["proved", "tested", "unknown", "failed"]},
                "how": {"type": "string", "minLength": 1},
                "seconds": {"type": "number", "minimum": 0},
                "invariants": {"type": "array", "items": {"type": "string"}},
                "witness": {"type": ["string", "null"]},
            },
        }
    },
}
"""What `lbw prove --format json` prints."""


def test_the_json_has_the_promises_as_plain_data() -> None:
    code, out, _ = told("prove", "small.lbw", "torn.lbw", "--format", "json")
    found = json.loads(out)
    jsonschema.validate(found, SCHEMA)
    assert code == 1
    (failed,) = (one for one in found["policies"][1]["promises"] if one["status"] == "failed")
    assert failed["witness"].startswith('test "')
    assert found["policies"][0]["summary"] == {"proved": 8, "tested": 2, "unknown": 0, "failed": 0}


# How far it is known


def test_without_a_solver_promises_are_tested_which_is_another_exit_code() -> None:
    code, out, _ = told("prove", "small.lbw", "--no-solver")
    assert (code, "without a solver" in out) == (3, True)
    limits = out.partition("  limits_hold\n")[2].partition("\n  everything_can_fire")[0]
    assert " proved " not in limits
    assert " tested " in limits


def test_without_z3_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solver, "available", lambda: False)
    code, out, _ = lbw("prove", "small.lbw")
    assert code == 3
    assert "z3 is not installed, so nothing is proved: " in out
    assert 'help: pip install "lbw_policy[prove]"\n' in out


def test_a_solver_without_time_proves_nothing() -> None:
    code, out, _ = lbw("prove", "small.lbw", "--seconds", "0.000001")
    assert code == 3
    assert out.startswith("UNKNOWN small.lbw: limits_hold, skip\n")
    assert "help: `--seconds` gives the solver longer; until then it counts as not kept\n" in out


CLAIM = Claim("limits_hold", "skip", "no more than so many", 4.0, "steps")


@pytest.mark.parametrize(
    ("statuses", "code"),
    [("PP", 0), ("PF", 1), ("UF", 1), ("PU", 3), ("PT", 3), ("TT", 3)],
)
def test_the_exit_code_is_that_of_the_worst(monkeypatch: pytest.MonkeyPatch, statuses: str, code: int) -> None:
    known = {"P": Status.PROVED, "F": Status.FAILED, "U": Status.UNKNOWN, "T": Status.TESTED}
    results = tuple(Result(CLAIM, known[letter], "somehow") for letter in statuses)
    monkeypatch.setattr(proofs, "prove", lambda *_, **__: results)
    assert lbw("prove", "small.lbw")[0] == code
    assert lbw("lbw-check", "--prove", "small.lbw")[0] == code


def test_what_speaks_of_code_alone_need_not_be_proved(monkeypatch: pytest.MonkeyPatch) -> None:
    of_code = evolve(CLAIM, promise="survives_resume", about="")
    results = (Result(CLAIM, Status.PROVED, "by induction"), Result(of_code, Status.TESTED, "by runs"))
    monkeypatch.setattr(proofs, "prove", lambda *_, **__: results)
    assert lbw("prove", "small.lbw")[0] == 0


# Certificates


def test_a_certificate_holds_of_the_policy_it_was_made_of() -> None:
    code, out, err = lbw("prove", "small.lbw", "--verify", "small.json")
    assert (code, err) == (0, "")
    assert out == "small.json: holds of small.lbw; every promise was decided again: 8 proved, 2 tested\n"


def test_where_a_certificate_was_written_is_told_beside_the_output(folder: Path) -> None:
    code, out, err = lbw("prove", "torn.lbw", "--certificate", "torn.json", "--format", "json")
    assert (code, err) == (1, "certificate written: torn.json\n")
    assert json.loads(out)["version"] == 1
    assert lbw("prove", "torn.lbw", "--verify", "torn.json")[0] == 1  # it holds: that a promise failed


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (("torn.lbw",), "`policy` differs: the certificate has 'small', expected 'torn'"),
        (("small.lbw", "--param", "most=7"), "`digest` differs"),
    ],
)
def test_a_certificate_of_something_else_is_refused(words: tuple[str, ...], reason: str) -> None:
    code, out, err = lbw("prove", *words, "--verify", "small.json")
    assert (code, err) == (1, "")
    assert out.startswith(f"small.json: refused, it does not hold of {words[0]}\n  - ")
    assert reason in " ".join(out.split())


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ('"bound": 20.0', '"bound": 10.0'),
        ('"status": "tested"', '"status": "proved"'),
        ("no more than 4 updates", "no more than 2 updates"),
        ('"promise": "survives_resume"', '"promise": "does_everything"'),
        ('"in_a_row": 4', '"in_a_row": 3'),
        ("in_a_row = run", "in_a_row <= run"),
    ],
)
def test_a_certificate_that_was_tampered_with_is_refused(folder: Path, before: str, after: str) -> None:
    text = (folder / "small.json").read_text(encoding="utf-8")
    assert before in text
    (folder / "tampered.json").write_text(text.replace(before, after, 1), encoding="utf-8")
    code, out, err = lbw("prove", "small.lbw", "--verify", "tampered.json")
    assert (code, err) == (1, "")
    assert out.startswith("tampered.json: refused, it does not hold of small.lbw\n  - ")
    found = json.loads(lbw("prove", "small.lbw", "--verify", "tampered.json", "--format", "json")[1])
    assert (found["holds"], bool(found["reasons"])) == (False, True)


@pytest.mark.parametrize("value", ["{}", "[]", "3", "null", '"proved"', '{"format": 1}', '{"promises": [[], 1, null]}'])
def test_json_that_is_no_certificate_is_refused(folder: Path, value: str) -> None:
    (folder / "other.json").write_text(value, encoding="utf-8")
    code, out, err = lbw("prove", "small.lbw", "--verify", "other.json")
    assert (code, err) == (1, "")
    assert out.startswith("other.json: refused, it does not hold of small.lbw\n  - ")


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"no json",
        b'{"format": 1',
        b"\x7fELF\x02\x01\x01\x00" * 100,
        b"\xff\xfe{\x00}\x00",
        b"[" * 200_000,
        b"9" * 100_000,
        b'{"format": 1}' + b" " * 16_000_000,
    ],
)
def test_a_file_that_cannot_be_a_certificate_is_told_in_one_line(folder: Path, raw: bytes) -> None:
    (folder / "odd.json").write_bytes(raw)
    code, out, err = lbw("prove", "small.lbw", "--verify", "odd.json")
    assert (code, out) == (2, "")
    assert err.startswith("lbw prove: error: `odd.json` is no certificate: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize("name", ["none.json", ".", "no/such/folder/c.json", "a\0b", "x" * 5_000])
def test_a_certificate_that_cannot_be_read_is_told_in_one_line(name: str) -> None:
    code, out, err = lbw("prove", "small.lbw", "--verify", name)
    assert (code, out, err.count("\n")) == (2, "", 1)
    assert err.startswith("lbw prove: error: cannot read `")


def test_a_long_list_of_reasons_is_cut(folder: Path) -> None:
    found = json.loads((folder / "small.json").read_text(encoding="utf-8"))
    found |= {"\x1b[2J" + "x" * 500 + str(number): 1 for number in range(100)}
    (folder / "long.json").write_text(json.dumps(found), encoding="utf-8")
    code, out, _ = lbw("prove", "small.lbw", "--verify", "long.json")
    assert code == 1
    assert "  - and 80 more\n" in out
    assert "\x1b" not in out
    assert len(out) < 10_000


def test_without_z3_no_certificate_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solver, "available", lambda: False)
    code, out, err = lbw("prove", "small.lbw", "--verify", "small.json")
    assert (code, out) == (2, "")
    assert err.startswith("lbw prove: error: z3 is not installed")


# Scripts


def test_every_script_is_answered_with_unsat(folder: Path) -> None:
    code, _, err = lbw("prove", "small.lbw", "--smt", "scripts", "--no-solver")
    scripts = sorted((folder / "scripts" / "small").iterdir())
    assert (code, err) == (3, f"{len(scripts)} scripts written: scripts\n")
    assert len(scripts) > 20
    for path in scripts:
        text = path.read_text(encoding="utf-8")
        assert text.startswith("; lbw_policy ")
        assert "|." not in text  # SMT-LIB keeps names that begin with a dot for solvers
        assert solver.check(text).verdict == solver.UNSAT, path


def test_scripts_do_not_mix_with_those_of_before(folder: Path) -> None:
    (folder / "full" / "small").mkdir(parents=True)
    (folder / "full" / "small" / "old.smt2").write_text("(check-sat)", encoding="utf-8")
    code, _, err = lbw("prove", "small.lbw", "--smt", "full", "--no-solver")
    assert (code, "`full/small` is not empty" in err) == (2, True)


@pytest.mark.parametrize("name", ["small.lbw", "small.lbw/deep", "a\0b"])
def test_a_folder_that_cannot_be_written_is_told(name: str) -> None:
    code, _, err = lbw("prove", "small.lbw", "--smt", name, "--no-solver")
    assert (code, err.startswith(f"lbw prove: error: cannot write to `{name[:1]}"), err.count("\n")) == (2, True, 1)


# Wrong usage, and files that cannot be read


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["small.lbw", "--promise", "limit_hold"], "unknown promise `limit_hold`; did you mean `limits_hold`?"),
        (["small.lbw", "--promise", "?"], "unknown promise `?`; expected one of limits_hold, "),
        (["small.lbw", "torn.lbw", "--certificate", "c.json"], "`--certificate` is for one policy, found 2"),
        (["small.lbw", "torn.lbw", "--verify", "small.json"], "`--verify` is for one policy, found 2"),
        (["small.lbw", "--promise", "limits_hold", "--certificate", "c"], "`--certificate` is about all promises"),
        (["small.lbw", "--no-solver", "--verify", "small.json"], "`--verify` proves everything again"),
        (["small.lbw", "--certificate", "no/such/folder/c.json"], "cannot write `no/such/folder/c.json`: no such file"),
        (["none.lbw"], "1 of 1 file cannot be proved: see above"),
        (["wrong.lbw", "small.lbw"], "1 of 2 files cannot be proved: see above"),
        ([""], "1 of 1 file cannot be proved: see above"),
        (["small.lbw", "--param", "none=3"], "1 of 1 file cannot be proved: see above"),
    ],
)
def test_what_cannot_be_done_is_told_with_exit_code_two(words: list[str], reason: str) -> None:
    code, out, err = lbw("prove", *words)
    assert (code, out) == (2, "")
    assert f"lbw prove: error: {reason}" in err


@pytest.mark.parametrize(
    "words",
    [
        [],
        ["small.lbw", "--seconds", "0"],
        ["small.lbw", "--seconds", "nan"],
        ["small.lbw", "--seconds", "1e9"],
        ["small.lbw", "--certificate", "a", "--verify", "b"],
        ["small.lbw", "--format", "yaml"],
    ],
)
def test_wrong_usage_ends_with_two(words: list[str]) -> None:
    code, _, err = lbw("prove", *words)
    assert (code, "usage: lbw prove" in err) == (2, True)


# lbw-check


def test_check_ends_with_the_card_and_the_verdict() -> None:
    code, out, err = told("lbw-check", "small.lbw", "torn.lbw")
    assert (code, err) == (0, "")
    first, second = out.index("authority of `small`"), out.index("authority of `torn`")
    assert first < second < out.index("tested: by hostile runs in the tests of lbw_policy")
    assert out.endswith("\n2 files checked: no findings\n")
    assert "  updates skipped       20 in any 1_000 steps" in out


@pytest.mark.parametrize("flag", ["-q", "--quiet"])
def test_check_can_leave_out_the_card(flag: str) -> None:
    assert told("lbw-check", flag, "small.lbw") == (0, "1 file checked: no findings\n", "")


def test_a_file_that_does_not_check_has_no_card() -> None:
    code, out, _ = told("lbw-check", "wrong.lbw")
    assert (code, "authority" in out) == (1, False)


def test_check_can_prove_and_the_card_then_says_so() -> None:
    code, out, err = told("lbw-check", "--prove", "small.lbw")
    assert (code, err) == (0, "")
    card = out[: out.index("\n\n")].splitlines()[1:]
    tested = [line.strip().partition("  ")[0] for line in card if line.endswith("tested")]
    assert tested == ["memory of windows", "never"]
    assert "small.lbw: 10 promises: 8 proved, 2 tested, in " in out
    assert out.endswith("\n1 file checked: no findings\n")


def test_check_shows_what_fails_before_the_card() -> None:
    code, out, _ = told("lbw-check", "--prove", "torn.lbw")
    assert code == 1
    assert out.startswith("FAILED torn.lbw: no_conflict, level caution\n")
    assert "  back to `normal`      3 steps after all is calm" in out


def test_check_without_z3_says_that_nothing_is_proved(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(solver, "available", lambda: False)
    code, out, _ = lbw("lbw-check", "--prove", "small.lbw")
    assert (code, "z3 is not installed, so nothing is proved" in out) == (3, True)
    assert " proved\n" not in out


def test_the_json_of_check_has_the_card_and_the_promises() -> None:
    plain = json.loads(told("lbw-check", "--format", "json", "small.lbw", "wrong.lbw")[1])
    assert {"what", "value", "unit", "status"} == set(plain["files"][0]["authority"][0])
    assert "promises" not in plain["files"][0]
    assert "authority" not in plain["files"][1]
    quiet = json.loads(told("lbw-check", "--format", "json", "-q", "small.lbw")[1])
    assert set(quiet["files"][0]) == {"path", "ok"}
    proved = json.loads(told("lbw-check", "--format", "json", "--prove", "small.lbw")[1])["files"][0]
    assert {one["status"] for one in proved["promises"]} == {"proved", "tested"}
    assert {"what": "updates skipped", "value": 20, "unit": "per 1_000 steps", "status": "proved"} in proved[
        "authority"
    ]


@pytest.mark.parametrize("form", ["github", "sarif"])
def test_findings_for_machines_stay_what_they_are(form: str) -> None:
    code, out, err = told("lbw-check", "--format", form, "--prove", "torn.lbw")
    assert out == told("lbw-check", "--format", form, "torn.lbw")[1]
    assert (code, err.startswith("FAILED torn.lbw: no_conflict")) == (1, True)


# What it costs


@pytest.mark.parametrize(
    ("words", "heavy"),
    [
        (["check", "small.lbw"], {"torch", "river", "numpy", "z3", "lbw_policy.verify"}),
        (["prove", "small.lbw", "--no-solver"], {"torch", "river", "numpy", "z3"}),
        (["prove", "small.lbw"], {"torch", "river", "numpy"}),
    ],
)
def test_nothing_heavy_is_imported_that_is_not_needed(words: list[str], heavy: set[str]) -> None:
    code = (
        f"import sys; from lbw_policy.cli.main import main; main({words!r});"
        f"found = set(sys.modules) & {heavy!r}; sys.exit(f'imported {{found}}' if found else 0)"
    )
    environment = {**os.environ, "PYTHONPATH": str(Path(lbw_policy.__file__).parents[1])}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment, check=False)
    assert (done.returncode, done.stderr) == (0, b"")


def test_the_command_is_listed() -> None:
    assert "prove     " in lbw("--help")[1]
