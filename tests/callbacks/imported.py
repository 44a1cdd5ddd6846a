"""What a run imports, all of it; `forked` has its server import this."""

import lightning.pytorch  # noqa: F401
import torchvision  # noqa: F401

from vitrine import assembly, config  # noqa: F401
from vitrine.analyses import ANALYSES
from vitrine.callbacks import analyze_run, averaging  # noqa: F401
from vitrine.cli import analyze, train  # noqa: F401
from vitrine.datamodules import DATA
from vitrine.runs import run_record  # noqa: F401

_ = [ANALYSES[name] for name in ANALYSES], DATA["signs"], DATA["folder"]
