"""A corpus of synthetic telemetry: quick to make, and what announces a divergence is known."""

from __future__ import annotations

import json
import math
import random
from pathlib import Path

import numpy as np

from lbw_policy.corpora import FORMAT, MANIFEST
from lbw_policy.risk import STANDARD_SOURCES

ARCHITECTURES = ("mlp", "gpt", "cnn")
GROUPS = ("lr", "data", "weights")
STEPS, START, LEAD = 160, 100, 12


def write_corpus(folder: Path, runs_each: int = 2, seed: int = 0) -> Path:
    """Write runs of every architecture and group, half of the faulty ones divergent, and as many benign ones."""
    folder.mkdir(parents=True, exist_ok=True)
    lines, rng = [], random.Random(seed)  # noqa: S311 - repeatable, and no secret hangs on it
    for architecture in ARCHITECTURES:
        for group in (*GROUPS, "benign", "benign"):
            for number in range(runs_each):
                diverges = group != "benign" and number % 2 == 0
                lines.append(_run(folder, (architecture, group, len(lines)), diverges, rng))
    (folder / MANIFEST).write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return folder


def _run(folder: Path, kind: tuple[str, str, int], diverges: bool, rng: random.Random) -> dict[str, object]:
    architecture, group, number = kind
    name = f"{architecture}-{group}-{number}"
    end = START + LEAD
    columns = {source: np.zeros(STEPS) for source in STANDARD_SOURCES}
    for step in range(STEPS):
        trouble = group != "benign" and step >= START and (diverges or step < START + 3)
        columns["loss"][step] = 2 + math.exp(-step / 50) + rng.gauss(0, 0.05)
        columns["grad_norm"][step] = math.exp(rng.gauss(0, 0.2) + (0.5 if trouble else 0))
        columns["lr"][step] = 1e-3
        columns["grad_agreement"][step] = rng.uniform(-0.2, 0.6)
        columns["overshoot"][step] = rng.gauss(1.0, 0.3)
        columns["update_ratio"][step] = 1e-3 * math.exp(rng.gauss(0, 0.1) + (3.0 if trouble else 0))
        columns["param_norm"][step] = 50 + step * 1e-2
        if diverges and step >= end:
            columns["loss"][step] += 20
    np.savez(folder / f"{name}.npz", **columns)
    return {
        "format": FORMAT,
        "id": name,
        "file": f"{name}.npz",
        "architecture": architecture,
        "optimizer": "adamw",
        "precision": "fp32",
        "fault": "none" if group == "benign" else f"{group}_fault",
        "group": group,
        "split": "test" if name.endswith("1") else "train",
        "seed": 0,
        "steps": STEPS,
        "start": None if group == "benign" else START,
        "diverged": diverges,
        "diverged_at": end if diverges else None,
        "healed": False,
        "recipe": {},
        "version": "0",
    }
