"""What a guard adds to a training step in instructions: `python benchmarks/instructions.py`.

Callgrind counts the same instructions on a busy machine as on a quiet one, so small differences show that no clock
resolves. It counts instructions and not time: a pass over memory has few of them and waits long, so this page's
figures stand beside those of `overhead.py` and do not replace them. Ten steps are counted, one of which reads what
needs forward hooks, and none of which takes a snapshot. Needs `valgrind`; one core, some minutes an arm.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from timing import show
from torch.utils.benchmark import Timer

_STEPS = 10
_SETUP = """
import sys
sys.path.insert(0, {folder!r})
import torch
torch.set_num_threads(1)
import overhead
bench = next(b for b in overhead.SIZES[{size!r}] if b.name == {model!r})
arms = {{overhead.UNGUARDED: overhead.unguarded, overhead.CLIPPED: overhead.clipped, **overhead.OURS}}
loop = overhead.loops(bench, {{{arm!r}: arms[{arm!r}]}}, {fused!r})[{arm!r}]
loop.run(2)
"""


def instructions(arm: str, size: str, model: str, fused: bool) -> float:
    """Return the instructions of one step of an arm, without those of Python's own set-up."""
    folder = Path(__file__).parent
    setup = _SETUP.format(folder=str(folder), size=size, model=model, arm=arm, fused=fused)
    counted = Timer(f"loop.run({_STEPS})", setup).collect_callgrind(number=1, collect_baseline=False)
    found: int = counted.counts()
    return found / _STEPS


def table(size: str, model: str, arms: Sequence[str], fused: bool) -> None:
    """Count every arm and print one table."""
    counts = {arm: instructions(arm, size, model, fused) for arm in arms}
    base, clip = counts[arms[0]], counts[arms[1]]
    rows = [
        [arm, f"{count / 1e6:,.1f}", f"{100 * (count / base - 1):+.2f} %", f"{100 * (count / clip - 1):+.2f} %"]
        for arm, count in counts.items()
    ]
    kind = "fused AdamW" if fused else "AdamW"
    show(f"{model} {size}, {kind}", ("loop", "million instructions a step", "over unguarded", "over clipping"), rows)


def main() -> None:
    """Run the benchmark."""
    import overhead

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", choices=tuple(overhead.SIZES), default="5M")
    parser.add_argument("--models", nargs="+", choices=("MLP", "GPT", "CNN"), default=["MLP", "GPT", "CNN"])
    parser.add_argument("--fused", action="store_true", help="fused AdamW instead of the default")
    arguments = parser.parse_args()
    if shutil.which("valgrind") is None:
        print("instructions are counted by `valgrind`, which is not installed")
        return
    # torch starts whatever is called `python` on the path.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    for model in arguments.models:
        table(arguments.size, model, (overhead.UNGUARDED, overhead.CLIPPED, *overhead.OURS), arguments.fused)


if __name__ == "__main__":
    main()
