"""Policies for people who read them: diagrams, plain sentences, differences in meaning."""

from lbw_policy.reading.differences import Difference, Direction, differences, report
from lbw_policy.reading.explain import Explanation, Section, explain
from lbw_policy.reading.graph import Edge, edges, to_dot, to_mermaid

__all__ = [
    "Difference",
    "Direction",
    "Edge",
    "Explanation",
    "Section",
    "differences",
    "edges",
    "explain",
    "report",
    "to_dot",
    "to_mermaid",
]
