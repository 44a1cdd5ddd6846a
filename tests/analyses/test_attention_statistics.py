"""Rollout, distance, entropy and the places of tokens against direct computations."""

import math

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models.swin_transformer import PatchMerging, PatchMergingV2, SwinTransformerBlockV2

from vitrine.analyses.attention_maps import attention_maps
from vitrine.analyses.attention_statistics import attended_maps, entropy, mean_distance, rollout
from vitrine.analyses.attention_structure import attention_structure, spread


def vit(height=16, width=16, **options):
    torch.manual_seed(0)
    sizes = {"image_size": height, "patch_size": 4, "num_layers": 2, "num_heads": 3, "hidden_dim": 24}
    network = torchvision.models.VisionTransformer(**sizes | options, mlp_dim=32, num_classes=5).eval()
    for block in network.encoder.layers:  # attend unevenly
        nn.init.normal_(block.self_attention.in_proj_weight, std=0.5)
    return network


def images(side=16, count=2):
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0))


def test_rollout_of_two_blocks_is_abnar_s_by_hand():
    maps = [a.double() for a in attention_maps(vit(), images()).values()]
    found = rollout(iter(maps))
    for image in range(2):
        joint = torch.eye(17, dtype=torch.float64)
        for a in maps:
            mean = sum(a[image, head] for head in range(3)) / 3
            mixed = 0.5 * mean + 0.5 * torch.eye(17)
            joint = (mixed / mixed.sum(1, keepdim=True)) @ joint
        torch.testing.assert_close(found[image], joint, rtol=0, atol=1e-6)
    torch.testing.assert_close(found.sum(-1), torch.ones(2, 17, dtype=torch.float64))


def test_distance_and_entropy_one_query_and_key_after_another():
    network = vit()
    structure = attention_structure(network, images())
    assert structure.readers == [0]
    for block, a in zip(structure.blocks, attention_maps(network, images()).values()):
        assert block.grid.size == (4, 4) and block.grid.cells.tolist() == [[-1, *range(16)]]
        distances, entropies = mean_distance(a, block.grid, (16, 16)), entropy(a, block.grid)
        for image, head in ((0, 0), (1, 2)):
            p = a[image, head].double()
            of_queries, evenness = [], []
            for q in range(1, 17):
                at = torch.tensor([(q - 1) // 4 * 4.0, (q - 1) % 4 * 4.0])
                far = [math.dist(at, ((k - 1) // 4 * 4.0, (k - 1) % 4 * 4.0)) for k in range(1, 17)]
                of_queries.append(sum(p[q, k + 1] * far[k] for k in range(16)) / p[q, 1:].sum())
                evenness.append(-sum(x * x.log() for x in p[q]) / math.log(17))
            expected = sum(of_queries) / 16, sum(evenness) / 16
            torch.testing.assert_close(distances[image, head].double(), expected[0], rtol=1e-5, atol=1e-6)
            torch.testing.assert_close(entropies[image, head].double(), expected[1], rtol=0, atol=1e-6)


def test_heads_that_look_at_themselves_and_at_all_alike():
    grid = attention_structure(vit(), images()).blocks[0].grid
    itself = torch.eye(17)[None, None]
    alike = torch.full((1, 1, 17, 17), 1 / 17)
    assert mean_distance(itself, grid, (16, 16)).item() == 0 and entropy(itself).item() == 0
    torch.testing.assert_close(entropy(alike), torch.ones(1, 1))
    places = torch.cartesian_prod(torch.arange(4.0), torch.arange(4.0)) * 4
    torch.testing.assert_close(mean_distance(alike, grid, (16, 16))[0, 0], torch.cdist(places, places).mean())


def test_maps_are_those_of_the_class_token_or_what_patches_receive():
    network = vit()
    structure = attention_structure(network, images())
    a = attention_maps(network, images())[structure.blocks[1].module]
    of_class = attended_maps(a, structure.blocks[1].grid, [0])
    assert torch.equal(of_class, a[:, :, 0, 1:].unflatten(-1, (4, 4)))
    received = attended_maps(a, structure.blocks[1].grid, [])
    torch.testing.assert_close(received, a[:, :, 1:, 1:].mean(2).unflatten(-1, (4, 4)))


@pytest.mark.parametrize("version", [1, 2])
def test_windows_of_swin_are_put_together_where_they_were_cut_and_shifted(version):
    torch.manual_seed(0)
    options = {} if version == 1 else {"block": SwinTransformerBlockV2}
    network = torchvision.models.SwinTransformer(
        [2, 2], 8, [2], [2], [4, 4], num_classes=5,
        downsample_layer=PatchMerging if version == 1 else PatchMergingV2, **options,
    ).eval()  # fmt: skip
    blocks = attention_structure(network, images(20)).blocks  # a grid of 10 x 10, padded to 12 x 12
    for block, shift in zip(blocks, (0, 2), strict=True):
        assert block.grid.size == (10, 10) and not block.is_global
        numbers = nn.functional.pad(torch.arange(100).view(10, 10), (0, 2, 0, 2), value=-1)
        numbers = numbers.roll((-shift, -shift), (0, 1))
        windows = numbers.view(3, 4, 3, 4).transpose(1, 2).reshape(9, 16)
        assert torch.equal(block.grid.cells, windows)
        a = attention_maps(network, images(20))[block.module]
        assert a.shape == (2, *block.shape)
        far = block.grid.distances((20, 20))
        inside = windows >= 0
        expected = [
            (a[0, w, 1, q, inside[w]] * far[w, q, inside[w]]).sum() / a[0, w, 1, q, inside[w]].sum()
            for w, q in inside.nonzero().tolist()
        ]
        found = mean_distance(a, block.grid, (20, 20))[0, 1]
        torch.testing.assert_close(found, sum(expected) / 100, rtol=1e-5, atol=1e-6)


def test_a_network_without_attention_has_no_blocks():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert attention_structure(network, images()).blocks == []


def test_blocks_are_spread_over_the_depth_with_the_last():
    assert spread(12, 4) == [0, 4, 7, 11] and spread(2, 4) == [0, 1] and spread(5, 1) == [4]
