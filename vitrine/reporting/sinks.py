"""Where results go besides the disk: the protocol, and the keys that dashboards show them under."""

from pathlib import Path
from typing import Protocol

from vitrine.analyses import traits_of
from vitrine.analyses.base import ALARM
from vitrine.analyses.result import AnalysisResult, CheckpointReport
from vitrine.reporting.bounds import shown_curves

# the sections of a dashboard, from the top; a key's section is what precedes its first slash
STORY = (
    "alarm",
    "Training",
    "Robustness",
    "Examples",
    "Class maps",
    "Truth",
    "Attention",
    "Features",
    "Concepts",
    "Training images",
    "Adversarial",
    "Classes",
    "Time",
)
UNITS = "Features/units"  # the table of units
STEP = "trainer/global_step"  # Lightning's name for it, and everybody's x axis

# metrics of a validation under attack
_ROBUST = ("clean_accuracy_subset", "robust_accuracy", "robust_gap", "fgsm_minus_pgd", "robust_alarm")
# metrics of classes: of each, quantiles over all, and the extreme ones by rank
_CLASSES = {
    "val/accuracy_class/": "Classes/accuracy/",
    "val/class_accuracy/": "Classes/all/",
    "val/worst_classes/": "Classes/worst/",
    "val/best_classes/": "Classes/best/",
}


class Sink(Protocol):
    """Takes the report of one checkpoint at a time. Never raises: one that fails says why and goes on."""

    def log(self, report: CheckpointReport, folder: Path) -> None:
        """Show the analyses that ran at a checkpoint; `folder` is the step's directory, whole by now."""
        ...

    def close(self) -> None:
        """Everything was logged."""
        ...


def section(name: str) -> str:
    """The section that an analysis is shown in, "Class maps" for "cam"."""
    return traits_of(name).section


def metric_key(name: str) -> str:
    """The key of a metric of training or validation: "Training/val/accuracy" for "val/accuracy"."""
    for prefix, place in _CLASSES.items():
        if name.startswith(prefix):
            return place + name.removeprefix(prefix)
    if name.removeprefix("val/") in _ROBUST:
        return f"Robustness/{name}"
    return f"Training/{name}"


def scalar_key(analysis: str, key: str) -> str:
    """The key of a scalar of an analysis: "Examples/dead_units/layer3", "Class maps/cam/inside_mask".

    An alarm's is its own.
    """
    if key.startswith(ALARM):
        return key
    if key == f"seconds/{analysis}":
        return f"Time/{analysis}"
    of = section(analysis)
    named_after_it = of.lower() == analysis
    return f"{of}/{key}" if named_after_it else f"{of}/{analysis}/{key}"


def named_scalars(analysis: str, result: AnalysisResult) -> dict[str, float]:
    """The scalars of an analysis that dashboards show, see `bounds`, and its seconds, by key."""
    scalars = shown_curves({scalar.key: float(scalar.value) for scalar in result.scalars})
    if not result.inapplicable:
        scalars[f"seconds/{analysis}"] = float(result.seconds)
    return {scalar_key(analysis, key): value for key, value in scalars.items()}


def table_key(analysis: str, figure: str) -> str:
    """The key of the table of a figure of an analysis."""
    return f"{section(analysis)}/{figure} table"


def media_key(analysis: str, layer: str | None) -> str:
    """The key of the pictures of an analysis, or of a layer of it: "Examples/examples/layer3"."""
    return "/".join([section(analysis), analysis, *([layer] if layer else [])])
