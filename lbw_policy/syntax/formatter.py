"""Policy text -> the same policy in canonical layout: comments, numbers, strings and parentheses as written.

It prints the tokens, not the tree, so that nothing an author wrote can get lost; the parse tree only
tells where statements, clauses and operators are.
"""

from __future__ import annotations

from lbw_policy.diagnostics import Diagnostic, Source, render
from lbw_policy.errors import PolicyError
from lbw_policy.syntax.comments import END, pieces
from lbw_policy.syntax.layout import print_lines
from lbw_policy.syntax.marks import Marks
from lbw_policy.syntax.parser import MAX_CHARACTERS, built, parse
from lbw_policy.syntax.printer import Printer
from lbw_policy.syntax.recovery import Driver


def format_text(text: str, name: str = "<text>") -> str:
    """Return the policy text in canonical layout, with the line ends of its first line.

    Raises:
        PolicyError: the text has syntax errors; it carries them all, reported under `name`.
    """
    source = Source(name, text)
    findings = parse(source).diagnostics
    if findings:
        raise _refused(findings)
    found = pieces(text)
    tree = Driver(built(), source).run([piece.token for piece in found if piece.kind != END])
    assert tree is not None, "a text without findings has a tree"
    printed = print_lines(Printer(found, Marks.of(tree, found)).lines(tree))
    if text[: text.find("\n") + 1].endswith("\r\n"):
        printed = printed.replace("\n", "\r\n")
    if len(printed) > MAX_CHARACTERS:
        raise _refused((_too_long(source),))
    return printed


def _refused(findings: tuple[Diagnostic, ...]) -> PolicyError:
    return PolicyError("\n".join(render(finding) for finding in findings), findings)


def _too_long(source: Source) -> Diagnostic:
    message = f"expected a policy of at most {MAX_CHARACTERS:_} characters in canonical layout, found a longer one"
    return Diagnostic("LBW003", message, source, help="split the policy")
