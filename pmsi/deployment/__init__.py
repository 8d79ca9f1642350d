"""Trained networks in the field: exported, tested as exported, and asked about photographs."""
