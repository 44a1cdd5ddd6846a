"""A trained network as a file for other programs, with its normalisation inside: it takes pixels in [0, 1].

    python analyze.py export RUN                             ONNX of the best checkpoint, else of the last
    python analyze.py export RUN format=torch_export         for torch.export.load
    python analyze.py export RUN format=safetensors          its weights, as model.weights takes them
    python analyze.py export CKPT out=FILE.onnx              one checkpoint
    python analyze.py export model.name=squeezenet1_0 model.weights=FILE image_size=224

The file's logits are compared with the network's on validation images (random ones where the data are not at
hand), and it is written only if they agree to 1e-4. Its metadata have the class names, mean and std, the size
of images, the step and the hash of the weights. ONNX needs `pip install "vitrine[onnx]"`; where
onnxruntime, a part of that, is missing, the file is written without the comparison, which is then said.
"""

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vitrine.core.settings import SettingError, setting

_SUFFIXES = {"onnx": ".onnx", "torch_export": ".pt2", "safetensors": ".safetensors"}
_IMAGES = 8  # that logits are compared on


@dataclass(frozen=True)
class Settings:
    format: str = setting("onnx", "of the file", choices=tuple(_SUFFIXES))
    checkpoint: str = setting("best", "of a run: best (the last where none is marked), last, or a step")
    out: str | None = setting(
        None, "file to write; unless given RUN/export/CHECKPOINT.onnx, .pt2, .safetensors"
    )
    image_size: int | None = setting(None, "pixels a side; the run's unless given", least=1)
    batch: int | None = setting(None, "images a call, where the file is to be for so many only", least=1)
    opset: int | None = setting(None, "of ONNX; torch's choice unless given", least=18, most=25)


def main(words: list[str], settings: Settings) -> None:
    started = time.monotonic()
    if settings.opset is not None and settings.format != "onnx":
        raise SettingError("opset", f"is {settings.opset}, which is of format=onnx, not {settings.format}")
    suffix = _SUFFIXES[settings.format]
    if settings.out is not None and (Path(settings.out).suffix != suffix or Path(settings.out).is_dir()):
        expected = f"expected a file that ends in {suffix} (format={settings.format})"
        raise SettingError("out", f"is {settings.out}, {expected}")

    # not at the top: seconds of imports, which a mistyped setting need not wait for
    from vitrine.cli.network import choose_checkpoint, find_network
    from vitrine.examination.examiner import weights_hash
    from vitrine.modules import export
    from vitrine.modules.network_record import record_of
    from vitrine.runs.checkpoint_files import read_step

    words, checkpoint = choose_checkpoint(words, settings.checkpoint)
    source = find_network(words, "cpu")
    network, record = source.network, record_of(source.network)
    images, origin = _example_images(source, settings)
    metadata = {
        "classes": record.classes,
        "input": "pixels in [0, 1], [N, C, H, W]; the normalisation is inside",
        "image_size": images.shape[-1],
        "channels": source.channels,
        **_normalisation(network, record),
        "network": record.spec["name"],
        "step": None if checkpoint is None else read_step(checkpoint),
        "weights_sha256": weights_hash(network),
    }
    text = {key: v if isinstance(v, str) else json.dumps(v) for key, v in metadata.items() if v is not None}
    fixed = settings.batch is not None
    try:
        if settings.format == "onnx":
            content, run = export.to_onnx(network, images, text, settings.opset, fixed)
        elif settings.format == "torch_export":
            content, run = export.to_torch_export(network, images, text, fixed)
        else:
            content, run = export.to_safetensors(network, text)
        difference = None if run is None else export.check_same(network, run, images, fixed)
    except export.ExportError as error:
        raise SettingError("export", str(error)) from error
    stem = Path(source.name).stem if checkpoint is None else checkpoint.stem
    default = (source.run / "export" if source.run else Path()) / f"{stem}{suffix}"
    file = default if settings.out is None else Path(settings.out)
    _write(file, content)
    size, took = len(content) / 2**20, time.monotonic() - started
    print(
        f"{source.name} as {settings.format}, {len(record.classes)} classes, {size:,.1f} MiB, in {took:.0f} s"
    )
    if difference is None:
        print("NOT CHECKED, as onnxruntime is not installed: pip install onnxruntime")
    else:
        print(f"its logits differ by at most {difference:.1e} from the network's on {len(images)} {origin}")
    print(f"the file: {file}")


def _example_images(source: Any, settings: Settings) -> tuple[Any, str]:
    """Images [N, C, H, W] in [0, 1] for the network, and whence they are."""
    import torch

    from vitrine import assembly, config
    from vitrine.analyses.base import as_float

    count, size, problem = settings.batch or _IMAGES, settings.image_size, "this is no run"
    if source.run is not None:
        try:
            data = assembly.build_data(config.load_saved(source.run, []))
        except SettingError as error:
            problem = str(error)
        else:
            size = size or data.image_size
            found = min(count, len(data.val))
            if size == data.image_size and found >= (settings.batch or 2):
                return as_float(torch.stack([data.val[i][0] for i in range(found)])), "validation images"
    if size is None:
        raise SettingError("image_size", f"is not given, and cannot be told: {problem}")
    generator = torch.Generator().manual_seed(0)
    return torch.rand(count, source.channels, size, size, generator=generator), "random images"


def _normalisation(network: Any, record: Any) -> dict[str, list[float] | None]:
    """Mean and standard deviation, of [0, 1] pixels, of the network's normalisation or its record's."""
    from vitrine.modules.normalize import Normalize

    inner = getattr(network, "normalize", None)
    if isinstance(inner, Normalize):
        return {"mean": inner.mean.flatten().tolist(), "std": inner.std.flatten().tolist()}
    return {"mean": record.mean, "std": record.std}


def _write(file: Path, content: bytes) -> None:
    from vitrine.core import atomic

    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        atomic.write_bytes(file, content)
    except OSError as error:
        raise SettingError("out", f"{file} cannot be written: {error.strerror}") from None
