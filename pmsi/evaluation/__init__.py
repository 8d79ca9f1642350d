"""What is measured of a trained network: accuracy, robustness, activation maps, statistics."""
