"""The Triton backend: kernel, launch parameters, and the plan's table."""
