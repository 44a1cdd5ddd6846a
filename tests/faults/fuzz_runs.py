"""Settings of training: refused by name before the first step, without a folder, or trained to the end."""

from __future__ import annotations

import contextlib
import io
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

from cases import run_cases, time_limit
from hypothesis import strategies as st

from vitrine.cli import train
from vitrine.core.settings import SettingError

SMALL = [
    "data.train_size=12",
    "data.val_size=6",
    "data.image_size=16",
    "model.options={widths: [4, 8]}",
    "trainer.max_epochs=1",
    "trainer.accelerator=cpu",
    "trainer.enable_progress_bar=false",
    "trainer.log_every_n_steps=1",
    "analysis.mode=off",
    "logging.wandb.mode=disabled",
]
METRICS = [
    "val/accuracy",
    "val/loss",
    "val/ece",
    "val/acc",
    "val_loss",
    "accuracy",
    "train/loss",
    "val/f1",
    "loss",
]
METRICS += [
    "val/robust_accuracy",
    "val/accuracy_class/stop",
    "val/accuracy_class/nothing",
    "Val/Accuracy",
    "null",
]
PRECISIONS = [
    "32-true",
    "bf16-mixed",
    "16-mixed",
    "64-true",
    "bf16-true",
    "16-true",
    "32",
    "16",
    "bf16",
    "64",
    "half",
]
CHOICES = {
    "checkpoint.monitor": METRICS,
    "checkpoint.mode": ["min", "max", "best"],
    "trainer.precision": PRECISIONS,
    "data.batch_size": [1, 2, 3, 5, 12, 13, 100, 0],
    "data.train_size": [1, 2, 7, 13],
    "data.val_size": [1, 2, 0],
    "trainer.val_check_interval": [1, 2, 5, 100, 0.5, 1.0, 0],
    "trainer.check_val_every_n_epoch": [1, 2, "null", 0],
    "trainer.limit_train_batches": [0, 1, 2, 0.01, 0.5],
    "trainer.limit_val_batches": [0, 1, 0.1],
    "trainer.accumulate_grad_batches": [1, 2, 5, 0],
    "trainer.max_epochs": [0, 2],
    "trainer.log_every_n_steps": [0, 3],
    "trainer.num_sanity_val_steps": [0, 2, -1],
    "trainer.gradient_clip_val": [0, 1.0],
    "optimizer.ema": ["null", 0.9, 1.5],
    "checkpoint.every_steps": ["null", 1, 2, 50],
    "objective.name": ["standard", "pgd", "fast", "free", "trades"],
    "validation.robust_images": [0, 2],
    "model.name": ["convnet", "resnet20"],
}
choices = st.lists(
    st.sampled_from([(key, value) for key, values in CHOICES.items() for value in values]),
    max_size=4,
    unique_by=lambda pair: pair[0],
).map(dict)


def check_in(place: Path) -> Any:
    def check(chosen: dict[str, Any]) -> str:
        shutil.rmtree(place, ignore_errors=True)
        place.mkdir(parents=True)
        base = [word for word in SMALL if not ("model.name" in chosen and word.startswith("model."))]
        words = [*base, *(f"{key}={value}" for key, value in chosen.items())]
        try:
            with time_limit(120), contextlib.redirect_stdout(io.StringIO()):
                train.main([*words, f"run.root={place}", "run.name=a"])
        except SettingError as refusal:
            assert "\n" not in str(refusal) and refusal.key
            assert list(place.iterdir()) == [], f"{refusal}, and yet a folder was made"
            return "refused before the first step"
        assert (place / "a" / "index.html").is_file() or (place / "a" / "run.json").is_file()
        return "trained to the end"

    return check


def run(count: int, seed: int, folder: Path) -> Counter:
    """So many runs: how many were refused before anything was made, and how many ended well."""
    return run_cases(count, seed, choices, check_in(folder / "runs"))
