"""What is shown of transformers, against what is computed anyway.

    python -m benchmarks.transformers [--device cuda] [--rounds 5] [--images 512]

Attention: the statistics of the probes (distance and entropy of every head, maps, rollout) beside the pass
over the data set that finds examples: together at most 1.10x of that pass alone. The last line has the
statistics of every image of the pass, which no analysis computes: what attention in steps costs an image.
"""

from __future__ import annotations

import argparse
from functools import partial

import torch
import torchvision
from torch import Tensor, nn

from benchmarks.ratio import compare, hardware, table
from vitrine.analyses.attention_maps import Attention, attention_hooks
from vitrine.analyses.attention_pictures import AttentionPictures
from vitrine.analyses.attention_statistics import entropy, mean_distance
from vitrine.analyses.attention_structure import AttentionStructure, attention_structure
from vitrine.analyses.base import Probes, Subject
from vitrine.analyses.examples import top_examples
from vitrine.analyses.layers import auto_layers
from vitrine.modules import load_network

PROBES, BATCH = 16, 64


def networks() -> dict[str, tuple[nn.Module, int]]:
    """Networks and the side of their images, by what they are called in the table."""
    torch.manual_seed(0)
    small = {"patch_size": 8, "width": 96, "depth": 4, "mlp_ratio": 2, "conv_stem": True}
    return {
        "vit_tiny_4 as in configs/signs-vit.yaml": (
            load_network("vit_tiny_4", classes=8, image_size=64, options=small),
            64,
        ),
        "ViT-S/16 of torchvision's class": (
            torchvision.models.VisionTransformer(224, 16, 12, 6, 384, 1536, num_classes=1000),
            224,
        ),
    }


def statistics(network: nn.Module, structure: AttentionStructure, images: Tensor) -> None:
    """Distance and entropy of every head on images, batch by batch; nothing is kept."""
    grids = {block.module: block.grid for block in structure.blocks}

    def add(attention: Attention) -> None:
        grid = grids[attention.module]
        mean_distance(attention.probabilities, grid, tuple(images.shape[-2:]))
        entropy(attention.probabilities, grid)

    with torch.no_grad(), attention_hooks(network, add):
        for batch in images.split(BATCH):
            network(batch)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--images", type=int, default=512, help="in the data set")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    print(hardware(options.device), end="\n\n")
    for name, (network, side) in networks().items():
        network = network.to(options.device).eval().requires_grad_(False)
        images = torch.rand(options.images, 3, side, side, device=options.device)
        labels = torch.zeros(options.images, dtype=torch.int64)
        probes = Probes(images[:PROBES], labels[:PROBES], torch.arange(PROBES))
        subject = Subject(network, probes, [], ["class"], {}, device=torch.device(options.device))
        layers, structure = auto_layers(network, images[:1]), attention_structure(network, images[:1])
        loader = list(zip(images.split(BATCH), labels.split(BATCH)))

        def examples(network: nn.Module, loader: list, layers: list[str]) -> None:
            top_examples(network, loader, layers)

        def with_attention(subject: Subject, *rest: list) -> None:
            examples(subject.network, *rest)
            subject.cache.clear()
            list(AttentionPictures()(subject))

        def alone(subject: Subject) -> None:
            subject.cache.clear()
            list(AttentionPictures()(subject))

        contestants = {
            f"dataset examples of {options.images} images": partial(examples, network, loader, layers),
            f"with attention of {PROBES} probes": partial(with_attention, subject, loader, layers),
            f"attention of {PROBES} probes alone": partial(alone, subject),
            f"distance and entropy of {options.images} images": partial(
                statistics, network, structure, images
            ),
        }
        title = f"{name}, {side} pixels: {len(structure.blocks)} blocks"
        print(table(compare(contestants, options.rounds, device=options.device), title), end="\n\n")


if __name__ == "__main__":
    main()
