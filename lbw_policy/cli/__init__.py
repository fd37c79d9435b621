"""The commands: `lbw-check` and the umbrella `lbw`."""
