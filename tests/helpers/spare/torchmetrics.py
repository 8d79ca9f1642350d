"""In the way of the real one, see tests/conftest.py."""

raise ImportError("tests do without it")
