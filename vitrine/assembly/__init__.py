"""From settings to the objects that they describe, for `train.py` and `analyze.py` alike."""

from vitrine.assembly.logs import Logs, open_logs
from vitrine.assembly.parts import (
    build_analyses,
    build_classifier,
    build_data,
    build_examiner,
    build_network,
    build_test_module,
    check_network,
    check_objective,
    checkpoint_loader,
)
from vitrine.assembly.trainers import build_test_trainer, build_trainer

__all__ = [
    "Logs",
    "build_analyses",
    "build_classifier",
    "build_data",
    "build_examiner",
    "build_network",
    "build_test_module",
    "build_test_trainer",
    "build_trainer",
    "check_network",
    "check_objective",
    "checkpoint_loader",
    "open_logs",
]
