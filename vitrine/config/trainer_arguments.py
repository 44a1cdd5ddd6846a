"""The arguments of lightning.Trainer as settings: their types, Vitrine's defaults, and a check of them."""

import typing
from typing import Any, Literal

from vitrine.core.registry import nearest
from vitrine.core.settings import SettingError, format_type, union_members

DEFAULTS = {  # that differ from those of lightning.Trainer
    "max_epochs": 5,
    "devices": 1,
    "num_sanity_val_steps": 0,
    "enable_model_summary": False,
}
RESERVED = {  # arguments of lightning.Trainer that Vitrine sets itself -> the settings to use instead
    "callbacks": "checkpoint, analysis",
    "logger": "logging",
    "default_root_dir": "run.root",
    "enable_checkpointing": "checkpoint",
    "use_distributed_sampler": "data",
    "reload_dataloaders_every_n_epochs": "data",
    "plugins": "trainer.strategy",
    "model_registry": "run.name",
    "inference_mode": "analysis",
    "barebones": "logging",
}
HALF_PRECISION = ("16-true", "bf16-true", "transformer-engine", "transformer-engine-float16")
SHARDING = ("fsdp", "deepspeed", "model_parallel", "xla_fsdp")  # strategies without a whole network on a rank
CHILDREN = ("ddp_fork", "ddp_spawn", "ddp_notebook")  # strategies that train in children of the program


# Every argument that a user can set: its type, without classes of Lightning's, and its default. A test holds
# them against the signature, which takes seconds to import.
_SIGNATURE: dict[str, tuple[Any, Any]] = {
    "accelerator": (str, "auto"),
    "strategy": (str, "auto"),
    "devices": (list[int] | str | int, "auto"),
    "num_nodes": (int, 1),
    "precision": (
        Literal[
            *(64, 32, 16, "transformer-engine", "transformer-engine-float16", "16-true", "16-mixed"),
            *("bf16-true", "bf16-mixed", "32-true", "64-true", "64", "32", "16", "bf16"),
        ]
        | None,
        None,
    ),
    "fast_dev_run": (int | bool, False),
    "max_epochs": (int | None, None),
    "min_epochs": (int | None, None),
    "max_steps": (int, -1),
    "min_steps": (int | None, None),
    "max_time": (str | dict[str, int] | None, None),
    "limit_train_batches": (int | float | None, None),
    "limit_val_batches": (int | float | None, None),
    "limit_test_batches": (int | float | None, None),
    "limit_predict_batches": (int | float | None, None),
    "overfit_batches": (int | float, 0.0),
    "val_check_interval": (int | float | str | dict[str, int] | None, None),
    "check_val_every_n_epoch": (int | None, 1),
    "num_sanity_val_steps": (int | None, None),
    "log_every_n_steps": (int | None, None),
    "enable_progress_bar": (bool | None, None),
    "enable_model_summary": (bool | None, None),
    "accumulate_grad_batches": (int, 1),
    "gradient_clip_val": (int | float | None, None),
    "gradient_clip_algorithm": (str | None, None),
    "deterministic": (bool | Literal["warn"] | None, None),
    "benchmark": (bool | None, None),
    "profiler": (str | None, None),
    "detect_anomaly": (bool, False),
    "sync_batchnorm": (bool, False),
    "enable_autolog_hparams": (bool, True),
}


def parameters() -> dict[str, Any]:
    """Name -> type of every argument that a user can set."""
    return {name: hint for name, (hint, _) in _SIGNATURE.items()}


def default(name: str) -> Any:
    """The default of an argument: Vitrine's, else Lightning's."""
    return DEFAULTS.get(name, _SIGNATURE[name][1])


def check(arguments: dict[str, Any]) -> None:
    """Raise SettingError for the first argument that lightning.Trainer does not accept."""
    known = parameters()
    for name, value in arguments.items():
        key = f"trainer.{name}"
        if name in RESERVED:
            raise SettingError(key, f"is Vitrine's own to fill in; see the settings under {RESERVED[name]}")
        if name not in known:
            close = nearest(name, known)
            hint = f"did you mean trainer.{close[0]}?" if close else f"known: {', '.join(known)}"
            raise SettingError(key, f"lightning.Trainer has no such argument; {hint}")
        if name == "strategy" and str(value).lower().startswith(SHARDING):
            problem = "divides the network among the ranks, and analyses need it whole"
            raise SettingError(key, f"is {value}, which {problem}; expected auto, ddp or another of its kind")
        if name == "strategy" and str(value).lower().startswith(CHILDREN):
            problem = "trains in children of this program, which could not report what they did"
            raise SettingError(key, f"is {value}, which {problem}; expected ddp")
        if name == "precision" and str(value) in HALF_PRECISION:
            problem = "rounds pixels, small perturbations and averages of weights; expected bf16-mixed,"
            raise SettingError(key, f"is {value}, which {problem} 16-mixed or 32-true")
        if not any(_matches(value, member) for member in union_members(known[name])):
            raise SettingError(key, f"is {value!r}, expected {format_type(known[name])}")
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            lowest = 1 if name in ("accumulate_grad_batches", "check_val_every_n_epoch", "num_nodes") else -1
            if not value >= lowest:
                raise SettingError(key, f"is {value}, expected at least {lowest}")


def _matches(value: Any, member: Any) -> bool:
    kind = typing.get_origin(member) or member
    if kind is typing.Literal:
        return any(value == v and type(value) is type(v) for v in typing.get_args(member))
    if kind is float:
        return type(value) in (int, float)
    return kind is Any or (kind in (int, str, bool, list, dict, type(None)) and type(value) is kind)
