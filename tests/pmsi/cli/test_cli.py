"""The `pmsi` command names the packages that are missing, and otherwise hands over to its subcommands."""

from __future__ import annotations

import subprocess
import sys

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


@pytest.mark.parametrize("words", [["predict", "--help"], ["data", "--help"]])
def test_a_reader_that_has_enough_ends_a_command_in_silence(words: list[str]) -> None:
    command = [sys.executable, "-m", "pmsi", *words]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.stderr is not None
        assert process.stderr.read() == b""
    assert process.returncode in (0, 1)  # argparse takes no notice of the pipe
