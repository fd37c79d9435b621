"""The page on signals tells of every signal."""

import re
from pathlib import Path

from lbw_policy.semantics.signals import SIGNALS

PAGE = Path(__file__).parents[2] / "docs" / "signals.md"


def rows(heading: str) -> list[tuple[set[str], list[str]]]:
    """Return the words in backticks that open each row of the tables under a heading, and the row's other cells."""
    section = PAGE.read_text(encoding="utf-8").partition(f"\n## {heading}\n")[2]
    section = re.split(r"^## ", section, maxsplit=1, flags=re.MULTILINE)[0]
    lines = [re.split(r"(?<!\\)\|", line)[1:-1] for line in section.splitlines() if line.startswith("| `")]
    return [(set(re.findall(r"`(\w+)`", cells[0])), [cell.strip() for cell in cells[1:]]) for cells in lines]


def test_every_signal_has_a_row_with_its_unit_and_formula() -> None:
    found = {name: cells for names, cells in rows("The signals") for name in names}
    assert set(found) == set(SIGNALS)
    for name, cells in found.items():
        assert cells[0] == str(SIGNALS[name].unit)
        assert cells[1]


def test_every_sampled_signal_has_its_accuracy_told() -> None:
    sampled = {name for names, cells in rows("The signals") if "sampled" in cells[2] for name in names}
    told = {name for names, _ in rows("Accuracy") for name in names}
    assert sampled
    assert sampled <= told
    assert {"hessian_trace", "gradient_curvature", "attention_logit_max"} <= told
