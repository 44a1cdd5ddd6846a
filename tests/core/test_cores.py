"""Cores are counted, and what needs them begins, on systems that know less than Linux."""

import os
import sys

import pytest

from vitrine import config
from vitrine.core.cores import available_cores
from vitrine.datamodules.drawing_ahead import DrawingAhead


@pytest.fixture
def data():
    """Settings of what would be drawn ahead on Linux; what they import is that system's."""
    return config.load([]).data


@pytest.fixture
def other_system(monkeypatch):
    """macOS or Windows, where a process cannot be bound to some cores."""
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS")


def test_where_no_process_is_bound_to_cores_all_count(other_system, monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 6)
    assert available_cores() == 6
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert available_cores() == 1
    monkeypatch.setattr(os, "sched_getaffinity", lambda process: {3, 5}, raising=False)
    assert available_cores() == 2


def test_on_another_system_than_linux_nothing_is_drawn_ahead(data, other_system):
    ahead = DrawingAhead()
    ahead.begin(data, 0)
    assert not ahead.is_of(data, 0)
