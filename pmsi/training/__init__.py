"""The progressive trainer and its parts."""
