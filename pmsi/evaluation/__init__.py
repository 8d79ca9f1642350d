"""Measurements of a trained network: accuracy, robustness, activation maps, statistics."""
