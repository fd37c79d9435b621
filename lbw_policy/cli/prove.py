"""`lbw prove`: every promise of a policy, proved for all inputs, or tested, or broken by a run. Imports no torch."""

from __future__ import annotations

import argparse
import difflib
import json
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from attrs import evolve

from lbw_policy.cli.policies import UNUSABLE, add_param_option, printable_lines, tolerate
from lbw_policy.diagnostics import Severity, printable, render
from lbw_policy.errors import ResourceError

if TYPE_CHECKING:
    from lbw_policy.cli.proofs import Proof
    from lbw_policy.cli.suites import Read
    from lbw_policy.semantics import Policy

PROMISES = (
    *("limits_hold", "progress_guaranteed", "skip_cannot_livelock", "refines_parent", "survives_resume"),
    *("cooldown_respected", "dwell_bounded", "oscillation_bounded", "calm_returns", "no_conflict"),
    *("unknown_never_relaxes", "everything_can_fire"),
)
SECONDS = 10.0
_LONGEST = 86_400
_EPILOG = """\
exit codes: 0 every promise that can be proved is proved
            1 a promise does not hold, or a certificate is refused
            2 wrong usage, or a file that cannot be read or does not check
            3 a promise is unknown, or only tested for want of a solver
--verify proves everything again: a certificate is never believed."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    parser.add_argument(
        "paths", nargs="+", metavar="FILE", help="file, glob, folder, preset name, or `-` for standard input"
    )
    parser.add_argument("-v", "--verbose", action="store_true", help="show sentences, reasons and invariants too")
    parser.add_argument("--promise", metavar="NAME", help="show promises of this name only, such as `limits_hold`")
    parser.add_argument("--seconds", type=_seconds, default=SECONDS, metavar="N", help="most time to solve a policy")
    parser.add_argument("--no-solver", action="store_true", help="test the promises only, as without z3")
    parser.add_argument("--format", choices=("text", "json"), default="text", help="how to print the outcome")
    parser.add_argument("--smt", type=Path, metavar="DIR", help="write what is proved as SMT-LIB, for any solver")
    certificates = parser.add_mutually_exclusive_group()
    certificates.add_argument("--certificate", type=Path, metavar="OUT", help="write what was proved, as JSON")
    certificates.add_argument("--verify", type=Path, metavar="FILE", help="check a certificate of the policy again")
    add_param_option(parser)


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not 0 < value <= _LONGEST:
        raise argparse.ArgumentTypeError(f"expected seconds above 0, up to {_LONGEST:_}, found `{text}`")
    return value


def run(arguments: argparse.Namespace) -> int:
    """Prove every policy; return 0 if all is proved, 1 if a promise fails, 2 if one cannot be read, 3 otherwise."""
    from lbw_policy.cli.suites import read_policies

    tolerate()
    try:
        found = read_policies(arguments.paths, dict(arguments.params))
    except ResourceError as error:
        return _refuse(str(error))
    if any(one.checked.policy is None for one in found):
        return _show_broken(found)
    policies = [(one.name, one.checked.policy) for one in found if one.checked.policy]
    complaint = _complaint(arguments, len(policies))
    if complaint:
        return _refuse(complaint)
    return _run(arguments, policies)


def _run(arguments: argparse.Namespace, policies: Sequence[tuple[str, Policy]]) -> int:
    from lbw_policy.cli.certificates import Unusable

    try:
        return _verify(arguments, policies[0]) if arguments.verify else _prove(arguments, policies)
    except Unusable as error:
        return _refuse(str(error))


def _complaint(arguments: argparse.Namespace, count: int) -> str:
    """Return what is wrong about options that do not go together, or an empty text."""
    option = "--certificate" if arguments.certificate else "--verify" if arguments.verify else ""
    if option and count != 1:
        return f"`{option}` is for one policy, found {count}"
    if option and arguments.promise:
        return f"`{option}` is about all promises: leave out `--promise`"
    if arguments.verify and arguments.no_solver:
        return "`--verify` proves everything again: leave out `--no-solver`"
    return _unknown(arguments.promise) if arguments.promise else ""


def _unknown(name: str) -> str:
    if name in PROMISES:
        return ""
    meant = difflib.get_close_matches(name, PROMISES, n=1)
    advice = f"did you mean `{meant[0]}`?" if meant else f"expected one of {', '.join(PROMISES)}"
    return f"unknown promise `{name}`; {advice}"


# Proving


def _prove(arguments: argparse.Namespace, policies: Sequence[tuple[str, Policy]]) -> int:
    from lbw_policy.cli.proofs import FAILED, OPEN, PROVED, proof_of

    solves, seconds = not arguments.no_solver, arguments.seconds
    proofs = [proof_of(name, policy, solves=solves, seconds=seconds) for name, policy in policies]
    _write(arguments, proofs)
    if arguments.promise:
        proofs = [_only(proof, arguments.promise) for proof in proofs]
    _show(arguments, proofs)
    codes = {proof.code for proof in proofs}
    return FAILED if FAILED in codes else OPEN if OPEN in codes else PROVED


def _only(proof: Proof, name: str) -> Proof:
    kept = [tuple(one for one in group if one.claim.promise == name) for group in (proof.results, proof.open)]
    return evolve(proof, results=kept[0], open=kept[1])


def _write(arguments: argparse.Namespace, proofs: Sequence[Proof]) -> None:
    """Write the files that were asked for, and say so on stderr."""
    from lbw_policy.cli import certificates, scripts

    if arguments.certificate:
        certificates.write(arguments.certificate, proofs[0])
        print(printable(f"certificate written: {arguments.certificate}"), file=sys.stderr)
    if arguments.smt:
        count = scripts.write_scripts(arguments.smt, [proof.policy for proof in proofs])
        print(printable(f"{count:_} scripts written: {arguments.smt}"), file=sys.stderr)


def _show(arguments: argparse.Namespace, proofs: Sequence[Proof]) -> None:
    from lbw_policy.cli import proofs as shown

    if arguments.format == "json":
        print(json.dumps({"version": 1, "policies": [proof.as_dict() for proof in proofs]}, indent=2))
        return
    for proof in proofs:
        for trouble in shown.troubles(proof):
            print(printable_lines(trouble) + "\n")
    for proof in proofs:
        print(printable_lines("\n".join(shown.table(proof, verbose=arguments.verbose))) + "\n")
    if not arguments.no_solver and any(proof.solver is None for proof in proofs):
        print(shown.unsolved() + "\n")
    for proof in proofs:
        print(printable(shown.verdict(proof)))


# Certificates


def _verify(arguments: argparse.Namespace, one: tuple[str, Policy]) -> int:
    from lbw_policy.cli import certificates
    from lbw_policy.cli.proofs import INSTALL
    from lbw_policy.verify import solver

    if not solver.available():
        return _refuse("z3 is not installed, so nothing can be proved again", INSTALL)
    found = certificates.check(arguments.verify, *one, arguments.seconds)
    text = json.dumps(found.as_dict(), indent=2) if arguments.format == "json" else "\n".join(found.lines())
    print(printable_lines(text))
    return found.code


# What cannot be used


def _show_broken(found: Sequence[Read]) -> int:
    for one in found:
        for finding in one.checked.diagnostics if one.checked.policy is None else ():
            if finding.severity is Severity.ERROR:
                print(render(finding) + "\n", file=sys.stderr)
    broken = sum(one.checked.policy is None for one in found)
    return _refuse(f"{broken} of {len(found)} file{'s' * (len(found) != 1)} cannot be proved: see above")


def _refuse(reason: str, advice: str = "") -> int:
    print(f"lbw prove: error: {printable(reason)}", file=sys.stderr)
    if advice:
        print(f"help: {advice}", file=sys.stderr)
    return UNUSABLE
