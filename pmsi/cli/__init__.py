"""The `pmsi` command."""

from pmsi.cli.commands import main

__all__ = ["main"]
