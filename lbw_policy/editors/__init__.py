"""What editors need: highlighting, and the language server. Pure: no torch, river or numpy."""
