"""Policy text -> tree of nodes with spans. Knows words and grammar, nothing of their meaning."""

from lbw_policy.syntax.parser import MAX_CHARACTERS, Parsed, parse

__all__ = ["MAX_CHARACTERS", "Parsed", "parse"]
