"""Seeded trouble: every kind of fault and every benign shift, by name."""

from __future__ import annotations

from lbw_policy.lab import data_faults as data
from lbw_policy.lab import gradient_faults as gradient
from lbw_policy.lab import moment_faults as moments
from lbw_policy.lab import rate_faults as rate
from lbw_policy.lab import shifts
from lbw_policy.lab import weight_faults as weights
from lbw_policy.lab.trouble import BENIGN, CALM, GROUPS, Fault

_KINDS: tuple[type[Fault], ...] = (
    Fault,
    rate.LrGlitch,
    rate.LrHigh,
    rate.LrStart,
    rate.LrRamp,
    data.NanBatch,
    data.CorruptBatches,
    data.BadInput,
    data.Poison,
    weights.BitFlip,
    weights.WeightNoise,
    weights.LogitGrowth,
    weights.OutputGrowth,
    weights.RouterCollapse,
    gradient.GradientScale,
    gradient.GradientNan,
    gradient.GradientFlip,
    gradient.NoiseCreep,
    gradient.HalfOverflow,
    moments.MomentFlip,
    moments.StaleMoments,
    moments.MomentsLost,
    shifts.LabelNoise,
    shifts.DomainShift,
    rate.LrRestart,
    shifts.BatchSize,
    shifts.Curriculum,
    shifts.HardBatches,
    rate.Plateau,
    shifts.Spikes,
)

KINDS: dict[str, type[Fault]] = {kind.name: kind for kind in _KINDS}
"""Every kind by name: none, faults, benign shifts. Each has a default severity and length."""
FAULTS = {name: kind for name, kind in KINDS.items() if kind.group != BENIGN}
"""The kinds of trouble."""
BENIGN_SHIFTS = {name: kind for name, kind in KINDS.items() if kind.group == BENIGN and name != CALM.name}
"""What only looks like trouble."""

__all__ = ["BENIGN_SHIFTS", "CALM", "FAULTS", "GROUPS", "KINDS", "Fault"]
