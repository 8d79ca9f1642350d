"""Throughput of the augmentations beside other libraries."""
