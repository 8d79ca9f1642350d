"""Runs, and studies made of them: the paper's tables and figure."""
