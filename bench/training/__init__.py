"""Training epochs of `pmsi` beside plain published code."""
