import dataclasses

import pytest
import torch
import torchvision
from torch import nn

from vitrine import modules
from vitrine.analyses.attention_maps import attention_maps
from vitrine.analyses.attention_pictures import AttentionPictures
from vitrine.analyses.attention_statistics import entropy, mean_distance
from vitrine.analyses.attention_structure import attention_structure
from vitrine.analyses.base import Figure, Probes, Scalar, Subject
from vitrine.analyses.outlier_tokens import OutlierTokens, outlier_cut, token_norms
from vitrine.analyses.probe_relevance import ProbeRelevance

CLASSES = ["stop", "yield"]
BLOCKS = [f"encoder.layers.encoder_layer_{i}" for i in range(3)]


def subject(network, count=3, side=16, units=None):
    images = torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(count) % 2
    network = network.eval().requires_grad_(False)
    return Subject(network, Probes(images, labels, torch.arange(count)), [], CLASSES, units or {})


def vit():
    torch.manual_seed(0)
    return torchvision.models.VisionTransformer(16, 4, 3, 2, 16, 32, num_classes=2)


def results(analysis, given):
    made = list(analysis(given))
    figures = {item.key: item for item in made if isinstance(item, Figure)}
    return figures, {item.key: item.value for item in made if isinstance(item, Scalar)}


@pytest.mark.slow
def test_each_probe_has_a_picture_of_its_heads_and_its_rollout_and_all_heads_one():
    figures, scalars = results(AttentionPictures(probes=2, blocks=2), subject(vit()))
    probes = [f"probe-00{i}/{what}" for i in range(2) for what in ("heads", "rollout")]
    assert list(figures) == [*probes, "heads"]
    assert "the class token attends to" in figures["probe-000/heads"].caption
    assert all(figure.image.dtype == torch.uint8 for figure in figures.values())
    assert list(scalars) == [f"attention_{what}/{b}" for b in BLOCKS[::2] for what in ("distance", "entropy")]


def test_tokens_that_a_distilled_transformers_head_reads_are_named_as_several():
    class Distilled(torchvision.models.VisionTransformer):
        def forward(self, x):
            prefix = self.class_token.expand(len(x), -1, -1)
            return self.heads(self.encoder(torch.cat([prefix, self._process_input(x)], 1))[:, :2].mean(1))

    network = Distilled(16, 4, 1, 2, 16, 32, num_classes=2)
    network.class_token = nn.Parameter(torch.rand(1, 2, 16))
    network.encoder.pos_embedding = nn.Parameter(torch.rand(1, 18, 16))
    for given, query in (
        (network, "the tokens that the head reads attend to"),
        (vit(), "the class token attends"),
    ):
        figures, _ = results(AttentionPictures(probes=1, blocks=1), subject(given))
        assert f"what {query}" in figures["probe-000/heads"].caption


def test_numbers_are_means_over_all_probes_and_heads_however_they_are_batched():
    given = subject(vit())
    figures, scalars = results(AttentionPictures(), given)
    maps, blocks = (
        attention_maps(given.network, given.probes.images),
        attention_structure(given.network, given.probes.images).blocks,
    )
    for block in blocks:
        a = maps[block.module]
        distance, evenness = mean_distance(a, block.grid, (16, 16)), entropy(a, block.grid)
        assert abs(scalars[f"attention_distance/{block.block}"] - distance.mean().item()) < 1e-5
        assert abs(scalars[f"attention_entropy/{block.block}"] - evenness.mean().item()) < 1e-5
    table = figures["heads"].table.columns
    assert table["head"][1] == f"{BLOCKS[0]}, head 1" and len(table["head"]) == 6
    expected = mean_distance(maps[blocks[0].module], blocks[0].grid, (16, 16))[:, 1].mean().item()
    assert abs(table["distance"][1] - expected) < 1e-5


def test_windows_have_maps_but_no_rollout():
    torch.manual_seed(0)
    network = torchvision.models.SwinTransformer([4, 4], 8, [2, 2], [2, 4], [2, 2], num_classes=2)
    figures, scalars = results(AttentionPictures(probes=1), subject(network, side=32))
    assert list(figures) == ["probe-000/heads", "heads"]
    assert "patches receive on average" in figures["probe-000/heads"].caption
    assert len(scalars) == 8


def test_a_network_without_attention_yields_nothing():
    network = modules.load_network("convnet", classes=CLASSES)
    for analysis in (AttentionPictures(), OutlierTokens()):
        assert list(analysis(subject(network, side=32))) == []


class LinearAttention(nn.Module):
    """Tokens attend by products of their features alone, without a softmax."""

    def __init__(self):
        super().__init__()
        self.embed, self.tokens, self.head = nn.Conv2d(3, 8, 8, 8), nn.Identity(), nn.Linear(8, 2)

    def forward(self, x):
        tokens = self.tokens(self.embed(x).flatten(2).mT)
        return self.head((tokens + tokens @ (tokens.mT @ tokens)).mean(1))


def test_attention_that_cannot_be_found_is_said_once_by_each_technique(caplog):
    given = subject(LinearAttention(), side=32, units={"tokens": [0]})
    techniques = {
        "attention": AttentionPictures(),
        "outlier_tokens": OutlierTokens(),
        "relevance": ProbeRelevance(),
    }
    for analysis in techniques.values():
        assert list(analysis(given)) == []
    assert [line.partition(":")[0] for line in caplog.messages] == [f"{n} is left out" for n in techniques]
    assert "computes no softmax over its tokens" in caplog.text
    caplog.clear()
    later = dataclasses.replace(given, previous=dict.fromkeys(techniques, ()))
    for analysis in techniques.values():
        assert list(analysis(later)) == []
    assert not caplog.messages


class Planted(nn.Module):
    """Lengthens some tokens of a block's output, by row and column of the grid."""

    def __init__(self, block, places):
        super().__init__()
        self.block, self.places = block, places

    def forward(self, x):
        x = self.block(x).clone()
        for row, column in self.places:
            x[:, 1 + row * 4 + column] *= 50
        return x


def test_planted_tokens_of_high_norm_are_counted_exactly():
    network, places = vit(), [(0, 3), (2, 1)]
    network.encoder.layers[1] = Planted(network.encoder.layers[1], places)
    blocks = [BLOCKS[0], BLOCKS[1], BLOCKS[2]]
    given = subject(network)
    figures, scalars = results(OutlierTokens(), given)
    assert [scalars[f"outlier_share/{b}"] for b in blocks] == [0, 2 / 16, 2 / 16]
    assert scalars["alarm/outlier_tokens"] == 1
    assert figures["probe-001"].table.columns["outliers"] == [0, 2, 2]
    norms = token_norms(network, given.probes.images, blocks[1:2])[blocks[1]]
    assert norms.shape == (3, 4, 4)
    assert (norms > outlier_cut(norms)).nonzero().tolist() == [[i, *at] for i in range(3) for at in places]


def test_norms_are_those_of_the_block_s_output_without_the_class_token():
    network = vit().eval()
    images, kept = torch.rand(2, 3, 16, 16), []
    network.encoder.layers[0].register_forward_hook(lambda _m, _i, output: kept.append(output))
    norms = token_norms(network, images, BLOCKS[:1])[BLOCKS[0]]
    torch.testing.assert_close(norms, kept[-1][:, 1:].square().sum(-1).sqrt().unflatten(1, (4, 4)))
    grids = {block.block: block.grid for block in attention_structure(network, images).blocks}
    torch.testing.assert_close(token_norms(network, images, BLOCKS[:1], grids)[BLOCKS[0]], norms)


def test_no_alarm_without_outliers():
    figures, scalars = results(OutlierTokens(probes=1, blocks=1), subject(vit()))
    assert scalars == {f"outlier_share/{BLOCKS[2]}": 0, "alarm/outlier_tokens": 0}
    assert list(figures) == ["probe-000"]


def test_the_cut_does_not_move_with_what_is_beyond_it():
    norms = torch.rand(1000, generator=torch.Generator().manual_seed(0)) + 10
    planted = norms.clone()
    planted[:10] = 1e4
    assert abs(outlier_cut(planted) - outlier_cut(norms)) < 0.5
    assert (planted > outlier_cut(planted)).sum() == 10
