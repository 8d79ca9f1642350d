"""Cores: affinity, quotas of control groups of both versions, and shares of ranks."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from pmsi.runtime import cores
from pmsi.runtime.cores import count_cores, count_workers, read_quota


def test_cores_are_those_that_may_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "read_quota", lambda: None)
    if sys.version_info >= (3, 13):
        monkeypatch.setattr(os, "process_cpu_count", lambda: 3)
    else:
        monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 4, 9}, raising=False)
    monkeypatch.setattr(os, "cpu_count", lambda: 128)
    assert count_cores() == 3
    for quota, count in ((64.0, 3), (1.5, 2), (0.2, 1)):
        monkeypatch.setattr(cores, "read_quota", lambda quota=quota: quota)
        assert count_cores() == count


def test_workers_are_shared_among_the_processes_of_a_host(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cores, "count_cores", lambda: 16)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    monkeypatch.delenv("LOCAL_RANK", raising=False)
    assert (count_workers(), count_workers(5), count_workers(0)) == (16, 5, 0)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "5")
    assert (count_workers(), count_workers(alone=True), count_workers(7)) == (3, 3, 7)
    for rank, alone in (("0", 16), ("1", 3)):  # the first decodes while the others wait
        monkeypatch.setenv("LOCAL_RANK", rank)
        assert (count_workers(), count_workers(alone=True)) == (3, alone)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "32")
    assert count_workers() == 1
    with pytest.raises(ValueError, match="--workers: must be 0 or above, got -2"):
        count_workers(-2)


@pytest.mark.parametrize(
    ("groups", "files", "quota"),
    [
        ("0::/\n", {"cpu.max": "200000 100000\n"}, 2.0),
        ("0::/\n", {"cpu.max": "max 100000\n"}, None),
        ("0::/\n", {}, None),
        ("0::/job/step\n", {"job/step/cpu.max": "max 100000", "job/cpu.max": "150000 100000"}, 1.5),
        ("0::/job/step\n", {"job/step/cpu.max": "400000 100000", "job/cpu.max": "800000 100000"}, 4.0),
        ("0::/../docker/abc\n", {"cpu.max": "100000 50000"}, 2.0),
        (
            "3:memory:/x\n2:cpu,cpuacct:/docker/a\n",
            {"cpu,cpuacct/cpu.cfs_quota_us": "300000", "cpu,cpuacct/cpu.cfs_period_us": "100000"},
            3.0,
        ),
        ("2:cpuacct,cpu:/a\n", {"cpu/a/cpu.cfs_quota_us": "50000\n", "cpu/a/cpu.cfs_period_us": "100000\n"}, 0.5),
        ("1:cpu:/\n", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, None),
        ("1:cpu:/\n", {"cpu/cpu.cfs_quota_us": "words", "cpu/cpu.cfs_period_us": "0"}, None),
    ],
)
def test_quotas_of_both_versions_are_read(tmp_path: Path, groups: str, files: dict[str, str], quota: float) -> None:
    (tmp_path / "cgroup").write_text(groups)
    for name, content in files.items():
        path = tmp_path / "mount" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    assert read_quota(tmp_path / "cgroup", tmp_path / "mount") == quota


def test_systems_without_control_groups_have_no_quota(tmp_path: Path) -> None:
    assert read_quota(tmp_path / "nowhere", tmp_path) is None
