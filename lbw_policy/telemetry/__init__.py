"""What a run says about itself: model, optimizer and the user's own numbers become plain readings."""

from lbw_policy.telemetry.collector import Collector
from lbw_policy.telemetry.layers import Layers
from lbw_policy.telemetry.readings import Packet, Plan, Readings, Sent
from lbw_policy.telemetry.sources import lacking
from lbw_policy.telemetry.stopwatch import Stopwatch

__all__ = ["Collector", "Layers", "Packet", "Plan", "Readings", "Sent", "Stopwatch", "lacking"]
