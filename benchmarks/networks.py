"""Networks of timm and transformers, none of them named to Vitrine: the layers chosen, and whether every
technique of the default run makes its pictures. Random weights, small images.

    pip install -e ".[timm,transformers]" && python -m benchmarks.networks
"""

from __future__ import annotations

import argparse
import dataclasses
import logging
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.ratio import hardware
from vitrine import load_network, look
from vitrine.analyses import ANALYSES, choose_analyses
from vitrine.analyses.base import Analysis
from vitrine.analyses.evidence import NoSpatialLayer, last_spatial_layer
from vitrine.analyses.layers import auto_layers
from vitrine.analyses.result import CheckpointReport

QUICK = "--only resnet10t,vit_tiny_patch16_224"
CLASSES = ["a", "b", "c", "d", "e"]
TIMM = {  # a network of each family, and the side of its images
    "resnet10t": 64, "skresnet18": 64, "regnetx_002": 64, "densenet121": 64, "efficientnet_lite0": 64,
    "mobilenetv3_small_050": 64, "mobilenetv4_conv_small_035": 64, "ghostnet_050": 64, "repvgg_a0": 64,
    "dla46_c": 64, "convnext_atto": 64, "convnextv2_atto": 64, "edgenext_xx_small": 64, "mobilevit_xxs": 64,
    "poolformer_s12": 64, "resmlp_12_224": 64, "vit_tiny_patch16_224": 64, "vit_medium_patch16_gap_256": 64,
    "deit_tiny_distilled_patch16_224": 64, "eva02_tiny_patch14_224": 56, "convit_tiny": 64,
    "cait_xxs24_224": 64, "xcit_nano_12_p16_224": 64, "pit_ti_224": 64, "swin_tiny_patch4_window7_224": 64,
    "swinv2_tiny_window8_256": 64, "coatnet_pico_rw_224": 64, "maxvit_pico_rw_256": 64, "pvt_v2_b0": 64,
    "focalnet_tiny_srf": 64, "davit_tiny": 64, "gcvit_xxtiny": 64, "mvitv2_tiny": 64, "levit_128s": 224,
}  # fmt: skip
_VIT = {
    "image_size": 32,
    "patch_size": 8,
    "hidden_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 2,
}
_SWIN = {"image_size": 32, "patch_size": 4, "embed_dim": 8, "depths": [2, 2], "num_heads": [2, 2]}
_TWO = {"hidden_sizes": [8, 16], "depths": [1, 1]}
HF: dict[str, dict[str, Any]] = {  # a small configuration of each family
    "ViTConfig": _VIT,
    "BeitConfig": _VIT,
    "Dinov2Config": _VIT,
    "SwinConfig": _SWIN | {"window_size": 2},
    "Swinv2Config": _SWIN | {"window_size": 2},
    "ConvNextConfig": _TWO | {"num_stages": 2},
    "ConvNextV2Config": _TWO | {"num_stages": 2},
    "ResNetConfig": _TWO | {"embedding_size": 8, "layer_type": "basic"},
    "RegNetConfig": _TWO | {"embedding_size": 8, "groups_width": 4},
    "FocalNetConfig": _TWO
    | {"image_size": 32, "embed_dim": 8, "focal_levels": [2, 2], "focal_windows": [3, 3]},
}  # fmt: skip
TRANSFORMERS = {  # torchvision's, and the side of their images; of timm and transformers those of above
    "vit_b_16": 64, "vit_b_32": 64, "vit_l_16": 64, "vit_l_32": 64, "vit_h_14": 56, "swin_t": 64,
    "swin_s": 64, "swin_b": 64, "swin_v2_t": 64, "swin_v2_s": 64, "swin_v2_b": 64, "maxvit_t": 224,
    "timm/vit_tiny_patch16_224": 64, "timm/vit_medium_patch16_gap_256": 64,
    "timm/deit_tiny_distilled_patch16_224": 64, "timm/eva02_tiny_patch14_224": 56, "timm/cait_xxs24_224": 64,
    "timm/xcit_nano_12_p16_224": 64, "timm/pit_ti_224": 64, "timm/swin_tiny_patch4_window7_224": 64,
    "timm/swinv2_tiny_window8_256": 64, "timm/maxvit_pico_rw_256": 64, "timm/pvt_v2_b0": 64,
    "timm/mvitv2_tiny": 64, "ViTConfig": 32, "BeitConfig": 32, "Dinov2Config": 32, "SwinConfig": 32,
}  # fmt: skip
SMALL = {
    "steps": 2,
    "copies": 2,
    "images": 4,
    "targets": 1,
    "curve": [1],
    "probes": 1,
    "shown": 1,
    "classes": 1,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--only", default="", help="parts of names, a comma between")
    parser.add_argument("--layers", action="store_true", help="do not run the techniques")
    parser.add_argument("--transformers", action="store_true", help="each technique on 28 transformers")
    options = parser.parse_args()
    warnings.filterwarnings("ignore")
    logging.getLogger("vitrine").propagate = False
    logging.getLogger("vitrine").addHandler(logging.NullHandler())
    start = time.perf_counter()
    if options.transformers:
        print_techniques(options.only.split(","))
        print(f"\nIn {time.perf_counter() - start:.0f} s: {hardware('cpu')}")
        return
    print("| network | image | layers chosen | Grad-CAM's layer | all techniques |")
    print("|---|---|---|---|---|")
    for name, side, network in networks(options.only.split(",")):
        print("| " + " | ".join(row(name, side, network, not options.layers)) + " |", flush=True)
    print(f"\nIn {time.perf_counter() - start:.0f} s: {hardware('cpu')}")


def networks(only: list[str]) -> Iterator[tuple[str, int, nn.Module]]:
    """Name, side of images and network of each family."""
    for name, side in TIMM.items():
        if any(part in name for part in only):
            torch.manual_seed(0)
            yield f"timm/{name}", side, load_network(f"timm/{name}", classes=CLASSES, image_size=side)
    import transformers

    for name, entries in HF.items():
        if any(part in name for part in only):
            side = entries.get("image_size", 32)
            with tempfile.TemporaryDirectory() as folder:
                getattr(transformers, name)(**entries).save_pretrained(folder)
                torch.manual_seed(0)
                yield f"hf, {name}", side, load_network(f"hf/{folder}", classes=CLASSES, image_size=side)


def transformers(only: list[str]) -> Iterator[tuple[str, int, nn.Module]]:
    """Name, side of images and network of each of `TRANSFORMERS`."""
    for name, side in TRANSFORMERS.items():
        if not any(part in name for part in only):
            continue
        if name in HF:
            yield from networks([name])
            continue
        torch.manual_seed(0)
        yield name, side, load_network(name, classes=CLASSES, image_size=side)


class Said(logging.Handler):
    """Keeps what Vitrine logs as a warning, by its first word: "relevance is left out: ..."."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: dict[str, str] = {}

    def emit(self, record: logging.LogRecord) -> None:
        first, _, rest = record.getMessage().partition(" ")
        self.lines.setdefault(first, rest)


def print_techniques(only: list[str]) -> None:
    """A table of transformers and techniques: the pictures of each, or why it gives none."""
    techniques = small()
    names = list(techniques)
    print(f"| network | image | {' | '.join(names)} |")
    print(f"|---|---:|{'---:|' * len(names)}")
    reasons: dict[str, int] = {}

    def noted(what: str, reason: str) -> str:
        return f"{what} ({reasons.setdefault(reason, len(reasons) + 1)})"

    for name, side, network in transformers(only):
        said = Said()
        logging.getLogger("vitrine").addHandler(said)
        results = examine(network.eval(), side).results
        logging.getLogger("vitrine").removeHandler(said)
        cells = []
        for technique in names:
            result = results[technique]
            if result.error:
                cells.append(noted("fails", result.error.strip().splitlines()[-1]))
            elif len(result.figures):
                cells.append(str(len(result.figures)))
            elif len(result.scalars):
                cells.append(f"{len(result.scalars)} curves")
            else:
                named = [technique, *getattr(techniques[technique], "maps", [])]
                cells.append(noted("none", next(said.lines[name] for name in named if name in said.lines)))
        print(f"| {name} | {side} | {' | '.join(cells)} |", flush=True)
    for why, number in reasons.items():
        print(f"\n({number}) {why}")


def row(name: str, side: int, network: nn.Module, run: bool) -> list[str]:
    """The cells of a network's row."""
    network.eval()
    images = torch.rand(1, 3, side, side, generator=torch.Generator().manual_seed(0))
    layers = auto_layers(network, images)
    try:
        layer = f"`{last_spatial_layer(network, images)}`"
    except NoSpatialLayer:
        layer = "unknown"
    ran = techniques_that_failed(network, side) if run else "not tried"
    return [name, str(side), ", ".join(f"`{name}`" for name in layers), layer, ran]


def techniques_that_failed(network: nn.Module, side: int) -> str:
    """ "yes", or the techniques of the default run that fail on a network, with the first one's reason."""
    found = examine(network, side)
    errors = found.errors
    if not errors:
        return f"yes, {found.figures} pictures"
    first = next(iter(errors.values())).strip().splitlines()[-1]
    return f"not {', '.join(errors)}: {first}".replace("|", "/")


def examine(network: nn.Module, side: int) -> CheckpointReport:
    """What the techniques of the default run give on ten images of noise."""
    generator = torch.Generator().manual_seed(1)
    dataset = [(torch.rand(3, side, side, generator=generator), i % len(CLASSES)) for i in range(10)]
    with tempfile.TemporaryDirectory() as folder:
        found = look(network, dataset, Path(folder), classes=CLASSES, analyses=small(), probes=1, units=1)
        for result in found.results.values():
            result.scalars = list(result.scalars)  # read while the folder is there
        return found


def small() -> dict[str, Analysis]:
    """The techniques of the default run, with few steps and images."""
    chosen = {}
    for name in choose_analyses(None):
        known = {field.name for field in dataclasses.fields(ANALYSES[name])}
        chosen[name] = ANALYSES[name](**{k: v for k, v in SMALL.items() if k in known})
    return chosen


if __name__ == "__main__":
    main()
