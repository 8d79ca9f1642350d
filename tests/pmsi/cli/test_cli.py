"""The `pmsi` command names the packages that are missing, and otherwise hands over to its subcommands."""

from __future__ import annotations

import pytest

from pmsi import cli


def test_missing_packages_are_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(cli, "find_spec", lambda module: None if module in ("PIL", "rich") else module)
    assert cli.main() == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err == "pmsi: needs the extra packages: pip install 'mosaicaug[pmsi]' (missing: pillow, rich)\n"


def test_the_exit_code_is_that_of_the_subcommand(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pmsi.cli.commands.main", lambda: 7)
    assert cli.main() == 7
