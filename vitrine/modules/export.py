"""A network as a file that other programs run: ONNX, torch.export, or safetensors of its weights."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import json
import logging
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from vitrine.core.module_copies import copy_module, tensors_of
from vitrine.modules.network_record import record_of
from vitrine.modules.weights import Weights, load_into

log = logging.getLogger(__name__)

TOLERANCE = 1e-4  # of logits, or of the largest logit where that is above 1
METADATA_FILE = "vitrine.json"  # within a file of torch.export

Run = Callable[[Tensor], Tensor]  # images to logits


class ExportError(ValueError):
    """A network that cannot be exported, or a file that does not give its logits."""


class _Exported(nn.Module):
    """The network as a submodule, so that its normalisation, a hook, is exported with it."""

    def __init__(self, network: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)


def to_onnx(
    network: nn.Module,
    images: Tensor,
    metadata: Mapping[str, str],
    opset: int | None = None,
    fixed: bool = False,
) -> tuple[bytes, Run | None]:
    """An ONNX model from "images" [N, C, H, W] in [0, 1] to "logits" [N, K]; and what runs it, if installed.

    Args:
        images: an example, at least two, in eval mode; the model is for their size, and for any N.
        metadata: into the model's metadata_props.
        opset: of ONNX; None: torch's choice.
        fixed: the model is for as many images as the example has.

    Raises:
        ExportError: onnx or onnxscript is not installed, or the network cannot be exported.
    """
    if missing := [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]:
        raise ExportError(f'needs {" and ".join(missing)}: pip install "vitrine[onnx]"')
    names = {"input_names": ["images"], "output_names": ["logits"], "opset_version": opset}
    shapes = None if fixed else ({0: torch.export.Dim("batch")},)
    with _as_export_error(), _quiet():
        program = torch.onnx.export(
            _Exported(network), (images,), dynamo=True, dynamic_shapes=shapes, verbose=False, **names
        )
        program.model.metadata_props.update(metadata)
        content = program.model_proto.SerializeToString()
    if importlib.util.find_spec("onnxruntime") is None:
        return content, None
    import onnxruntime

    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    return content, lambda batch: torch.from_numpy(session.run(None, {"images": batch.numpy()})[0])


def to_torch_export(
    network: nn.Module, images: Tensor, metadata: Mapping[str, str], fixed: bool = False
) -> tuple[bytes, Run]:
    """A file for `torch.export.load`, with the metadata as its extra file `METADATA_FILE`; and what runs it.

    Arguments and errors are those of `to_onnx`.
    """
    shapes = None if fixed else ({0: torch.export.Dim("batch")},)
    file = io.BytesIO()
    with _as_export_error(), _quiet():
        program = torch.export.export(_Exported(network), (images,), dynamic_shapes=shapes)
        torch.export.save(program, file, extra_files={METADATA_FILE: json.dumps(dict(metadata))})
    file.seek(0)
    return file.getvalue(), torch.export.load(file).module()


def to_safetensors(network: nn.Module, metadata: Mapping[str, str]) -> tuple[bytes, Run]:
    """The state_dict, as model.weights takes it, with the normalisation as `normalize.mean` and `.std`; and a
    copy of the network that was loaded from it.

    Raises:
        ExportError: the network has a state that safetensors cannot hold, or cannot be copied or loaded.
    """
    from safetensors.torch import load, save

    record = record_of(network)
    state = {name: value.detach().clone().contiguous() for name, value in tensors_of(network).items()}
    if left_out := ", ".join(sorted(network.state_dict().keys() - state.keys())):
        log.warning("safetensors hold tensors alone, so the network's %s is not in the file", left_out)
    added = {}
    if (
        record is not None and record.mean is not None and "normalize.mean" not in state
    ):  # beside a foreign one
        added = {f"normalize.{key}": torch.tensor(getattr(record, key)) for key in ("mean", "std")}
    with _as_export_error():
        content = save({**state, **added}, metadata=dict(metadata))
        twin = copy_module(network)
        with torch.no_grad():
            for value in tensors_of(twin).values():
                value.zero_()
        load_into(twin, Weights("the file", {k: v for k, v in load(content).items() if k not in added}))
    return content, twin


@torch.no_grad()
def check_same(network: nn.Module, exported: Run, images: Tensor, fixed: bool = False) -> float:
    """The largest difference of logits on images, all at once and, unless `fixed`, the first of them alone.

    Raises:
        ExportError: it is above `TOLERANCE`, or what was exported does not take the images.
    """
    largest = 0.0
    for batch in (images,) if fixed else (images, images[:1]):
        expected = network(batch)
        try:
            found = exported(batch)
        except Exception as error:
            raise ExportError(f"what was exported does not run: {_first_line(error)}") from error
        difference = (found - expected).abs().max().item()
        limit = TOLERANCE * max(1.0, expected.abs().max().item())
        if not difference <= limit:
            raise ExportError(
                f"logits differ by {difference:.1e} from the network's, expected at most {limit:.1e}"
            )
        largest = max(largest, difference)
    return largest


@contextlib.contextmanager
def _as_export_error() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # whatever a tracer makes of somebody's network
        cause: BaseException = error
        while cause.__cause__ is not None:
            cause = cause.__cause__
        raise ExportError(f"the network cannot be exported: {_first_line(cause)}") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's warnings about itself."""
    loggers: list[Any] = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:300] if lines else ''}"
