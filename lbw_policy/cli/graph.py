"""`lbw graph`: a policy's levels as a diagram, in Mermaid or dot."""

from __future__ import annotations

import argparse

from lbw_policy.cli.policies import UNUSABLE, add_param_option, read_policy, tolerate


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("policy", metavar="POLICY", help="path, preset name, or `-` for standard input")
    parser.add_argument("--format", choices=("mermaid", "dot"), default="mermaid", help="the language of the diagram")
    add_param_option(parser)


def run(arguments: argparse.Namespace) -> int:
    """Print the diagram; return 0, or 2 where the policy cannot be read or does not check."""
    from lbw_policy.reading import to_dot, to_mermaid

    tolerate()
    policy = read_policy("graph", arguments.policy, dict(arguments.params))
    if policy is None:
        return UNUSABLE
    print(to_dot(policy) if arguments.format == "dot" else to_mermaid(policy), end="")
    return 0
