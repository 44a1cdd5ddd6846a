"""What is shown of transformers, against what is computed anyway.

    python -m benchmarks.transformers [--device cuda] [--rounds 5] [--images 512] [--part relevance]

Attention: the statistics of the probes (distance and entropy of every head, maps, rollout) beside the pass
over the data set that finds examples: together at most 1.10x of that pass alone. The last line has the
statistics of every image of the pass, which no analysis computes: what attention in steps costs an image.

Relevance: LeGrad and the like on 8 images, beside a forward and input-only backward pass by hand, and
torchcam: LeGrad at most 1.3x of the passes by hand.
"""

from __future__ import annotations

import argparse
from functools import partial

import torch
import torchvision
from torch import Tensor, nn
from torchcam.methods import LeGrad

from benchmarks.ratio import compare, hardware, table
from vitrine.analyses.attention_maps import Attention, attention_hooks
from vitrine.analyses.attention_pictures import AttentionPictures
from vitrine.analyses.attention_statistics import entropy, mean_distance
from vitrine.analyses.attention_structure import AttentionStructure, attention_structure
from vitrine.analyses.base import Probes, Subject
from vitrine.analyses.examples import top_examples
from vitrine.analyses.layers import auto_layers
from vitrine.analyses.relevance import attention_gradient, chefer, legrad
from vitrine.modules import load_network

QUICK = "--part attention --images 64 --rounds 1"
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


def relevance(device: str, rounds: int) -> str:
    """Maps of relevance of ViT-B/16, each against the passes by hand, in turn."""
    torch.manual_seed(0)
    network = torchvision.models.vit_b_16(weights=None)
    nn.init.normal_(network.heads.head.weight)  # torchvision starts from 0
    network = network.to(device).eval().requires_grad_(False)
    images, targets = torch.rand(8, 3, 224, 224, device=device), torch.arange(8, device=device)

    def by_hand() -> Tensor:
        pixels = images.clone().requires_grad_()
        score = network(pixels).gather(1, targets[:, None]).sum()
        return torch.autograd.grad(score, pixels)[0]

    def torchcam() -> Tensor:
        with LeGrad(network, list(network.encoder.layers)) as extractor:
            return extractor(targets.tolist(), network(images), normalized=False)[0]

    contestants = {
        "forward and input-only backward by hand": by_hand,
        "LeGrad": lambda: legrad(network, images, targets),
        "Chefer's relevance": lambda: chefer(network, images, targets),
        "attention x gradient": lambda: attention_gradient(network, images, targets),
        "torchcam LeGrad": torchcam,
    }
    title = "ViT-B/16, 8 images of 224 pixels: maps of relevance"
    return table(compare(contestants, rounds, device=device), title)


def attention(device: str, count: int, rounds: int) -> None:
    """What attention costs beside dataset examples, a table a network."""
    for name, (network, side) in networks().items():
        network = network.to(device).eval().requires_grad_(False)
        images = torch.rand(count, 3, side, side, device=device)
        labels = torch.zeros(count, dtype=torch.int64)
        probes = Probes(images[:PROBES], labels[:PROBES], torch.arange(PROBES))
        subject = Subject(network, probes, [], ["class"], {}, device=torch.device(device))
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
            f"dataset examples of {count} images": partial(examples, network, loader, layers),
            f"with attention of {PROBES} probes": partial(with_attention, subject, loader, layers),
            f"attention of {PROBES} probes alone": partial(alone, subject),
            f"distance and entropy of {count} images": partial(statistics, network, structure, images),
        }
        title = f"{name}, {side} pixels: {len(structure.blocks)} blocks"
        print(table(compare(contestants, rounds, device=device), title), end="\n\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--images", type=int, default=512, help="in the data set")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--part", choices=["attention", "relevance"], help="one of them; both unless given")
    options = parser.parse_args()
    print(hardware(options.device), end="\n\n")
    if options.part != "attention":
        print(relevance(options.device, options.rounds), end="\n\n")
    if options.part != "relevance":
        attention(options.device, options.images, options.rounds)


if __name__ == "__main__":
    main()
