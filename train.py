"""Train a classifier and see inside it at every checkpoint.

    python train.py                                    the default run: traffic signs, 3 minutes on two cores
    python train.py configs/cifar10.yaml optimizer.lr=0.05
    python train.py run.name=NAME run.resume=true      start a run, or go on where it was cut off

Recipes are merged left to right, then key=value. `--help` lists every setting, `--help SECTION` some.
"""

from __future__ import annotations

import time
from typing import Any

import config
import runs
from command_line import answered, helped


def main(arguments: list[str]) -> None:
    if helped(arguments, __doc__):
        return
    started = time.monotonic()
    settings = config.load_run(arguments)

    import build  # seconds of imports, which a mistyped setting need not wait for
    from callbacks.analyze_checkpoints import AnalyzeCheckpoints
    from callbacks.resume import last_good_checkpoint
    from gallery.run_record import RunRecord

    data = build.data(settings)
    module = build.classifier(settings, data)
    analyses = build.analyses(settings, module.network, data)
    looking = AnalyzeCheckpoints(settings.folder, analyses, settings.analysis)
    trainer = build.trainer(settings, last=[looking])

    runs.claim(settings.folder, settings.run.resume)  # nothing is refused from here on
    settings.save()
    logs = build.logs(settings, data.classes)
    record = RunRecord(settings.folder, ["train.py", *arguments])
    trainer.loggers, looking.sinks = logs.loggers, [record, *logs.sinks]
    resumed = last_good_checkpoint(settings.folder) if settings.run.resume else None
    parameters = sum(p.numel() for p in module.network.parameters())
    print(data.describe())
    print(f"{settings.run.name}: {settings.model.name}, {parameters:,} parameters, in {settings.folder}")
    if resumed:
        print(f"going on from {resumed}")
    try:
        trainer.fit(module, datamodule=data, ckpt_path=resumed, weights_only=True)
    finally:
        record.close()
        logs.close()
    print(closing(settings, trainer, looking, logs, time.monotonic() - started))


def closing(settings: config.Settings, trainer: Any, looking: Any, logs: Any, seconds: float) -> str:
    """What came of the run, in a few lines: accuracy, where the time went, where everything is."""
    metrics = {k: float(v) for k, v in trainer.callback_metrics.items()}
    accuracy = f"validation accuracy {metrics['val/accuracy']:.1%}, " if "val/accuracy" in metrics else ""
    if "val/robust_accuracy" in metrics:
        accuracy += f"under attack {metrics['val/robust_accuracy']:.1%}, "
    lines = [
        "",
        f"{trainer.global_step:,} steps in {seconds:.0f} s: {accuracy}{looking.summary()}",
        *([f"seconds a technique: {looking.seconds()}"] if looking.reports else []),
        *(note for note in logs.notes if note),
        f"the page: {settings.folder / 'index.html'}",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    answered(main)
