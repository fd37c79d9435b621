"""Chooses the values of a policy's params on recorded runs, under a budget of false alarms."""
