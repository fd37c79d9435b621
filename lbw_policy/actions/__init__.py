"""What may be done to a run, each exactly and each undoable."""

from lbw_policy.actions.freezing import select, unfreezable
from lbw_policy.actions.generators import Generators
from lbw_policy.actions.gradients import Gradients, unskippable
from lbw_policy.actions.moments import reset_moments
from lbw_policy.actions.scaling import UpdateScale, unscalable
from lbw_policy.actions.snapshots import SnapshotInfo, Snapshots
from lbw_policy.actions.switching import Switch, unswitchable, unswitchable_now

__all__ = [
    "Generators",
    "Gradients",
    "SnapshotInfo",
    "Snapshots",
    "Switch",
    "UpdateScale",
    "reset_moments",
    "select",
    "unfreezable",
    "unscalable",
    "unskippable",
    "unswitchable",
    "unswitchable_now",
]
