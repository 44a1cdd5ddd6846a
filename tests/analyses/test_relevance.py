"""LeGrad against torchcam's; Chefer's relevance and attention x gradient against an attention by hand."""

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn
from torchcam.methods import LeGrad

from vitrine.analyses.relevance import NoTokenAttention, attention_gradient, chefer, legrad, rollout

MAPS = [legrad, chefer, attention_gradient]
TARGETS = torch.tensor([1, 4])


class Block(nn.Module):
    def __init__(self, width=12, heads=2):
        super().__init__()
        self.heads, self.norm1, self.norm2 = heads, nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 16), nn.GELU(), nn.Linear(16, width))

    def forward(self, x, attend=F.scaled_dot_product_attention):
        q, k, v = self.qkv(self.norm1(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        x = x + self.out(attend(q, k, v).transpose(1, 2).flatten(2))
        return x + self.mlp(self.norm2(x))


class Transformer(nn.Module):
    """Patches of 4 x 4 pixels of 12 x 16, tokens before them, and a head that reads a class token, the mean
    of the patches, or both."""

    def __init__(self, reads, prefix, depth=2):
        super().__init__()
        torch.manual_seed(0)
        self.reads, self.patches = reads, nn.Conv2d(3, 12, 4, 4)
        self.prefix = nn.Parameter(torch.randn(1, prefix, 12))
        self.positions = nn.Parameter(torch.randn(1, prefix + 12, 12))
        self.blocks = nn.ModuleList([Block() for _ in range(depth)])
        self.norm, self.head = nn.LayerNorm(12), nn.Linear(24 if reads == "both" else 12, 5)

    def tokens(self, x):
        patches = self.patches(x).flatten(2).mT
        return torch.cat([self.prefix.expand(len(x), -1, -1), patches], 1) + self.positions

    def logits(self, tokens):
        tokens = self.norm(tokens)
        read = {"class": tokens[:, :1], "mean": tokens[:, self.prefix.shape[1] :].mean(1, keepdim=True)}
        chosen = read.values() if self.reads == "both" else [read[self.reads]]
        return self.head(torch.cat([*chosen], 2)[:, 0])

    def forward(self, x):
        tokens = self.tokens(x)
        for block in self.blocks:
            tokens = block(tokens)
        return self.logits(tokens)


KINDS = [("class", 1), ("class", 5), ("mean", 0), ("mean", 3), ("both", 1)]  # what is read, tokens before


def images(count=2, size=(12, 16)):
    return torch.rand(count, 3, *size, generator=torch.Generator().manual_seed(0))


class Kept:
    """Attention by hand that keeps its probabilities."""

    def __init__(self):
        self.maps = []

    def __call__(self, q, k, v):
        self.maps.append(torch.softmax(q @ k.mT / q.shape[-1] ** 0.5, -1))
        return self.maps[-1] @ v


def by_hand(network, x):
    """Each image's probabilities and the gradients of its target's logit, [heads, queries, keys] by block."""
    for i, target in enumerate(TARGETS):
        attend = Kept()
        tokens = network.tokens(x[i : i + 1])
        for block in network.blocks:
            tokens = block(tokens, attend)
        gradients = torch.autograd.grad(network.logits(tokens)[0, target], attend.maps)
        yield [(a[0].detach(), g[0]) for a, g in zip(attend.maps, gradients)]


def read_rows(network, relevance):
    """What the head reads of [queries, keys], on the grid of patches."""
    prefix = network.prefix.shape[1]
    rows = {"class": relevance[0], "mean": relevance[prefix:].mean(0)}
    rows["both"] = (rows["class"] + rows["mean"]) / 2
    return rows[network.reads][prefix:].reshape(3, 4)


@pytest.mark.parametrize("reads, prefix", KINDS)
def test_relevance_of_two_blocks_is_that_computed_by_hand(reads, prefix):
    network, x = Transformer(reads, prefix), images()
    expected, last = [], []
    for first, second in by_hand(network, x):
        one, two = (sum((h * g).clamp(min=0) for h, g in zip(*block)) / 2 for block in (first, second))
        identity = torch.eye(12 + prefix)
        after_first = identity + one @ identity
        relevance = after_first + two @ after_first
        expected.append(read_rows(network, relevance - identity))
        last.append(read_rows(network, two))
    assert min(e.max() for e in expected) > 1e-3
    torch.testing.assert_close(chefer(network, x, TARGETS), torch.stack(expected), rtol=0, atol=1e-6)
    torch.testing.assert_close(attention_gradient(network, x, TARGETS), torch.stack(last), rtol=0, atol=1e-6)


@pytest.mark.parametrize("reads, prefix", KINDS)
def test_legrad_is_that_of_a_pass_for_every_block(reads, prefix):
    network, x = Transformer(reads, prefix, depth=3), images()
    maps = []
    for depth in (1, 2, 3):
        attend, tokens = Kept(), network.tokens(x)
        for block in network.blocks[:depth]:
            tokens = block(tokens, attend)
        mean = network.norm(tokens.mean(1))
        logits = network.head(torch.cat([mean, mean], 1) if reads == "both" else mean)
        score = logits[0, TARGETS[0]] + logits[1, TARGETS[1]]
        (gradient,) = torch.autograd.grad(score, attend.maps[-1])
        maps.append(gradient.clamp(min=0).mean((1, 2))[:, prefix:].reshape(2, 3, 4))
    expected = sum(maps) / 3
    torch.testing.assert_close(legrad(network, x, TARGETS), expected, rtol=1e-5, atol=1e-8)


@pytest.mark.parametrize("frozen", [True, False])
def test_legrad_is_torchcam_s_on_torchvision_s_vit(frozen):
    torch.manual_seed(0)
    arguments = {"image_size": 32, "patch_size": 8, "num_heads": 2, "hidden_dim": 16, "mlp_dim": 32}
    network = torchvision.models.VisionTransformer(**arguments, num_layers=4, num_classes=5).eval()
    nn.init.normal_(network.heads.head.weight)  # torchvision starts from 0: no gradient
    network.requires_grad_(not frozen)
    x = images(size=(32, 32))
    found = legrad(network, x, TARGETS)
    assert not any(p.grad is not None or p.requires_grad == frozen for p in network.parameters())
    with LeGrad(network, list(network.encoder.layers)) as extractor:
        (expected,) = extractor(TARGETS.tolist(), network(x), normalized=False)
    assert expected.max() > 1e-3
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * expected.max().item())


@pytest.mark.parametrize("attribute", MAPS)
def test_an_image_s_map_depends_on_its_target_alone_and_callers_change_nothing(attribute):
    network, x = Transformer("class", 1), images(3)
    found = attribute(network, x, 2)
    assert found.shape == (3, 3, 4) and (found >= 0).all() and found.amax((1, 2)).min() > 0
    torch.testing.assert_close(attribute(network, x[1:2], torch.tensor([2]))[0], found[1])
    assert not torch.allclose(attribute(network, x, 3), found)
    network.train()
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        inside = attribute(network, x + 0, 2)
    torch.testing.assert_close(inside, found, rtol=0, atol=0)
    assert network.training and not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())


@pytest.mark.parametrize("attribute", MAPS)
def test_a_network_that_writes_into_its_images_does_not_reach_the_caller_s(attribute):
    class Shifts(Transformer):
        def forward(self, x):
            return super().forward(x.sub_(0.5))

    x = images()
    attribute(Shifts("class", 1), x, TARGETS)
    assert torch.equal(x, images())


def swin(depths, windows):
    torch.manual_seed(0)
    return torchvision.models.SwinTransformer(
        [4, 4], 8, depths, [2] * len(depths), [windows] * 2, num_classes=5
    ).eval()


@pytest.mark.parametrize("shifted", [False, True])
def test_within_windows_attention_x_gradient_lies_where_the_tokens_are(shifted):
    network, x = swin([2, 3], 2), images(size=(16, 32))  # grids of 4 x 8, then 2 x 4 in 1 x 2 windows
    network.features[3] = network.features[3][: 2 if shifted else 1]
    kept = []
    softmax = F.softmax
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(F, "softmax", lambda *a, **k: kept.append(softmax(*a, **k)) or kept[-1])
        score = network(x).gather(1, TARGETS[:, None]).sum()
    (gradient,) = torch.autograd.grad(score, kept[-1])
    of_keys = (kept[-1] * gradient).clamp(min=0).mean((1, 2)).detach()  # [images x windows, keys]
    rows = of_keys.reshape(2, 1, 2, 2, 2).permute(0, 1, 3, 2, 4).reshape(2, 2, 4)
    expected = rows.roll((0, int(shifted)), (1, 2))  # torchvision shifts no window as high as the grid
    assert expected.max() > 1e-6
    found = attention_gradient(network, x, TARGETS)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6 * expected.max().item())
    for attribute in (legrad, chefer):
        with pytest.raises(
            NoTokenAttention, match=r"all tokens to all, and features.1.0.attn .* windows of 4"
        ):
            attribute(network, x, TARGETS)


@pytest.mark.parametrize("reads, prefix", KINDS[:4])
def test_rollout_of_two_blocks_is_that_computed_by_hand(reads, prefix):
    network, x = Transformer(reads, prefix), images()
    expected = []
    for (first, _), (second, _) in by_hand(network, x):
        one, two = ((a.mean(0) + torch.eye(12 + prefix)) / 2 for a in (first, second))
        expected.append(read_rows(network, two @ one))
    torch.testing.assert_close(rollout(network, x), torch.stack(expected), rtol=0, atol=1e-6)


def test_what_has_not_the_attention_is_refused_in_one_line():
    convolutional = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(560, 5))
    for attribute in MAPS:
        with pytest.raises(NoTokenAttention, match=r"^the network computes no attention$"):
            attribute(convolutional, images(), TARGETS)
        with pytest.raises(ValueError, match="targets: is 7, expected 0 to 4"):
            attribute(Transformer("class", 1), images(), 7)
        with pytest.raises(ValueError, match="images: are"):
            attribute(Transformer("class", 1), images()[0], TARGETS)


def test_blocks_that_are_no_modules_have_no_legrad():
    class Attend(nn.Module):
        def __init__(self):
            super().__init__()
            self.qkv = nn.Linear(12, 36)

        def forward(self, x):
            q, k, v = self.qkv(x).unflatten(2, (3, 2, -1)).permute(2, 0, 3, 1, 4)
            return F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)

    class InForward(Transformer):
        def __init__(self):
            super().__init__("class", 1)
            self.blocks = nn.ModuleList([nn.ModuleList([Attend(), nn.Linear(12, 12)]) for _ in range(2)])

        def forward(self, x):
            tokens = self.tokens(x)
            for attend, dense in self.blocks:
                tokens = tokens + attend(tokens)
                tokens = tokens + dense(tokens)
            return self.logits(tokens)

    assert chefer(InForward(), images(), TARGETS).shape == (2, 3, 4)
    with pytest.raises(
        NoTokenAttention, match=r"blocks that are modules of their own, and around blocks.0.0 there"
    ):
        legrad(InForward(), images(), TARGETS)
