"""How good the models are, measured: on labelled traces, and on fleets that are simulated."""
