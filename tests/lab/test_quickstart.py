"""The example in the documentation runs and does what it says."""

import math
import re
import runpy
from pathlib import Path

import pytest

_EXAMPLE = Path(__file__).parents[2] / "examples" / "quickstart.py"


def test_the_quickstart_survives_its_bad_batch_and_goes_on_learning(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(_EXAMPLE), run_name="__main__")
    printed = capsys.readouterr().out
    losses = [float(found) for found in re.findall(r"loss (\S+),", printed)]
    assert len(losses) == 8
    assert all(math.isfinite(loss) for loss in losses)
    assert losses[-1] < losses[0]
    assert "skip: 1 granted" in printed
