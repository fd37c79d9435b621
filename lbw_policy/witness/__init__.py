"""Finds telemetry that makes the real engine do something, and writes it as a `test` block. Pure."""
