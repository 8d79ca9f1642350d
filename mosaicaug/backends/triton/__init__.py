"""Triton backend: the kernel, the arguments of its launch, and the plan's table."""
