"""What a run imports, all of it; `forked` has its server import this."""

import importlib

from vitrine.analyses import ANALYSES
from vitrine.datamodules import DATA

MODULES = (
    "lightning.pytorch",
    "torchvision",
    "vitrine.assembly",
    "vitrine.callbacks.analyze_run",
    "vitrine.callbacks.averaging",
    "vitrine.cli.analyze",
    "vitrine.cli.train",
    "vitrine.config",
    "vitrine.runs.run_record",
)
for module in MODULES:
    importlib.import_module(module)
_ = [ANALYSES[name] for name in ANALYSES], DATA["signs"], DATA["folder"]
