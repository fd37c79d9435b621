"""`lbw diff`: what differs in meaning between two policies."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING

from lbw_policy.cli.policies import UNUSABLE, add_param_option, check_word, read_bytes, read_policy, tolerate

if TYPE_CHECKING:
    from lbw_policy.reading import Difference
    from lbw_policy.semantics import Policy

SAME, DIFFERENT = 0, 1
_EPILOG = """\
exit codes: 0 same meaning, 1 different, 2 wrong usage or a policy that cannot be read or does not check
`looser` and `!`: the guard may do more than before; `sooner`, `later`: when a rule fires"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = _EPILOG
    parser.add_argument("before", metavar="A", help="path, preset name, or `-` for standard input")
    parser.add_argument("after", metavar="B", help="the policy to compare with it, named likewise")
    parser.add_argument("--format", choices=("text", "json"), default="text", help="how to print differences")
    add_param_option(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the differences; return 0 where there is none, 1 where there are, 2 where one cannot be read."""
    from lbw_policy.reading import differences, report

    tolerate()
    if arguments.before == arguments.after == "-":
        return _refuse("only one of the policies can be the standard input")
    words = (arguments.before, arguments.after)
    policies = _read(words, dict(arguments.params))
    if policies is None:
        return UNUSABLE
    found = differences(*policies)
    print(_json(words, policies, found) if arguments.format == "json" else report(found), end="")
    return DIFFERENT if found else SAME


def _read(words: tuple[str, str], params: Mapping[str, float]) -> tuple[Policy, Policy] | None:
    """Return both policies, each with the given params that it has; None after saying why not."""
    text = read_bytes() if "-" in words else None
    given = [_known(word, params, text) for word in words]
    unknown = [name for name in params if not any(name in known for known in given)]
    if unknown:
        _refuse(f"neither policy has a param `{unknown[0]}`")
        return None
    before, after = (read_policy("diff", word, known, text) for word, known in zip(words, given, strict=True))
    return (before, after) if before and after else None


def _known(word: str, params: Mapping[str, float], text: bytes | None) -> dict[str, float]:
    if not params:
        return {}
    policy = check_word(word, {}, text).policy
    names = {param.name for param in policy.params} if policy else params  # a broken policy is reported later
    return {name: value for name, value in params.items() if name in names}


def _json(words: tuple[str, str], policies: tuple[Policy, Policy], found: tuple[Difference, ...]) -> str:
    sides = [
        {"path": word, "policy": one.name, "digest": one.digest} for word, one in zip(words, policies, strict=True)
    ]
    loose = sum(one.direction.loosens for one in found)
    plain = {"version": 1, "before": sides[0], "after": sides[1], "differences": [one.as_dict() for one in found]}
    return json.dumps({**plain, "looser": loose}, indent=2) + "\n"


def _refuse(reason: str) -> int:
    print(f"lbw diff: error: {reason}", file=sys.stderr)
    return UNUSABLE
