"""What a run says about itself: model, optimizer and the user's own numbers become plain readings."""

from lbw_policy.telemetry.collector import Collector
from lbw_policy.telemetry.layers import Layers
from lbw_policy.telemetry.readings import Plan, Readings
from lbw_policy.telemetry.sources import lacking
from lbw_policy.telemetry.stopwatch import Stopwatch

__all__ = ["Collector", "Layers", "Plan", "Readings", "Stopwatch", "lacking"]
