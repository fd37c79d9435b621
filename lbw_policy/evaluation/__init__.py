"""Trains priors of risk models on a corpus of recorded runs, and measures models on runs that they have not seen."""
