"""Small real trainings and seeded faults, with and without a guard."""
