"""Backbones and networks: PMSI, the baseline, and the methods it is compared with."""
