"""Attention probabilities and their gradients against what the networks themselves give on request."""

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from vitrine.analyses.attention_maps import attention_gradients, attention_hooks, attention_maps


def vit(**options):
    torch.manual_seed(0)
    arguments = {"image_size": 16, "patch_size": 4, "num_layers": 2, "num_heads": 3, "hidden_dim": 24}
    network = torchvision.models.VisionTransformer(**arguments | options, mlp_dim=32, num_classes=5).eval()
    nn.init.normal_(network.heads.head.weight)  # torchvision starts from 0: no gradient
    return network


def images(side=16, count=2):
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0))


def weights_on_request(network, x):
    """What `nn.MultiheadAttention` gives for `need_weights=True`, in order."""
    weights, forward = [], nn.MultiheadAttention.forward

    def ask(self, *args, **kwargs):
        result = forward(self, *args, **kwargs | {"need_weights": True, "average_attn_weights": False})
        weights.append(result[1])
        return result

    fast_path = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(nn.MultiheadAttention, "forward", ask)
        network(x)
    torch.backends.mha.set_fastpath_enabled(fast_path)
    return weights


def test_attention_of_torchvision_s_vit_is_that_given_on_request():
    network, x = vit(), images()
    maps = attention_maps(network, x)
    assert list(maps) == [f"encoder.layers.encoder_layer_{i}.self_attention" for i in range(2)]
    for found, expected in zip(maps.values(), weights_on_request(network, x), strict=True):
        assert found.shape == (2, 3, 17, 17)
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_the_fast_path_is_avoided_where_it_would_be_taken():
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
    network = nn.Sequential(nn.Flatten(2), nn.Linear(64, 16), layer, nn.Flatten(), nn.Linear(48, 5)).eval()
    maps = attention_maps(network, images(8))
    assert list(maps) == ["2.self_attn"]
    (expected,) = weights_on_request(network, images(8))
    torch.testing.assert_close(maps["2.self_attn"], expected, rtol=0, atol=1e-6)


def test_logits_stay_and_nothing_is_left_behind():
    network, x = vit(), images()
    with torch.no_grad():
        before = network(x)
        with attention_hooks(network, lambda a: None):
            within = network(x)
        assert torch.equal(network(x), before)
    torch.testing.assert_close(within, before, rtol=0, atol=1e-5)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in network.modules())
    assert all(p.grad is None and p.requires_grad for p in network.parameters())


def test_gradients_are_the_difference_that_a_changed_probability_makes():
    network, x, targets = vit().double(), images().double(), torch.tensor([1, 4])
    found = attention_gradients(network, x, targets)
    block = network.encoder.layers[0]
    step, entry = 1e-6, (1, 2, 0, 5)

    def logit(change):
        """A two-block network by hand, with one probability of the first block changed."""
        tokens = network._process_input(x)
        tokens = torch.cat([network.class_token.expand(2, -1, -1), tokens], 1) + network.encoder.pos_embedding
        attention = block.self_attention
        q, k, v = F.linear(block.ln_1(tokens), attention.in_proj_weight, attention.in_proj_bias).chunk(3, -1)
        q, k, v = (t.unflatten(2, (3, 8)).transpose(1, 2) for t in (q, k, v))
        a = (q @ k.mT / 8**0.5).softmax(-1)
        a[entry] += change
        tokens = tokens + attention.out_proj((a @ v).transpose(1, 2).flatten(2))
        tokens = tokens + block.mlp(block.ln_2(tokens))
        tokens = network.encoder.ln(network.encoder.layers[1](tokens))
        return network.heads(tokens[:, 0])[entry[0], targets[entry[0]]]

    with torch.no_grad():
        expected = (logit(step) - logit(-step)) / (2 * step)
    first = found.gradients["encoder.layers.encoder_layer_0.self_attention"]
    assert abs(expected) > 1e-6
    torch.testing.assert_close(first[entry], expected, rtol=1e-5, atol=1e-9)
    torch.testing.assert_close(found.logits, network(x).detach())


def test_only_the_class_token_s_queries_of_the_last_block_matter():
    found = attention_gradients(vit(), images(), 3)
    last = list(found.gradients.values())[-1]
    assert last[:, :, 0].abs().min() > 0 and not last[:, :, 1:].any()


@pytest.mark.parametrize("name", ["swin_t", "swin_v2_t"])
def test_windows_stay_windows(name):
    torch.manual_seed(0)
    builders = {"swin_t": "SwinTransformerBlock", "swin_v2_t": "SwinTransformerBlockV2"}
    network = torchvision.models.SwinTransformer(
        [4, 4], 8, [2, 2], [2, 4], [4, 4], num_classes=5,
        block=getattr(torchvision.models.swin_transformer, builders[name]),
        downsample_layer=torchvision.models.swin_transformer.PatchMergingV2
        if name == "swin_v2_t"
        else torchvision.models.swin_transformer.PatchMerging,
    ).eval()  # fmt: skip
    found = attention_gradients(network, images(32), torch.tensor([0, 1]))
    shapes = {name: tuple(a.shape) for name, a in found.maps.items()}
    assert shapes == {
        "features.1.0.attn": (2, 4, 2, 16, 16),
        "features.1.1.attn": (2, 4, 2, 16, 16),
        "features.3.0.attn": (2, 4, 16, 16),  # a single window: all of the grid
        "features.3.1.attn": (2, 4, 16, 16),
    }
    for a, gradient in zip(found.maps.values(), found.gradients.values()):
        torch.testing.assert_close(a.sum(-1), torch.ones_like(a.sum(-1)))
        assert gradient.shape == a.shape and gradient.any()
    alone = attention_maps(network, images(32)[1:])  # an image's windows are its own
    torch.testing.assert_close(alone["features.1.1.attn"][0], found.maps["features.1.1.attn"][1])


class Mixed(nn.Module):
    """Attention over batches written by hand, with a bias, and used twice."""

    def __init__(self):
        super().__init__()
        self.heads, self.dropout, self.softmax = 2, nn.Dropout(0.5), nn.Softmax(dim=-1)

    def forward(self, x):
        a = self.dropout(self.softmax(torch.einsum("bhqd,bhkd->bhqk", x, x)))
        return torch.einsum("bhqk,bhkd->bhqd", a, x)


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.attention = Mixed()

    def forward(self, x):
        x = x[:, :2].flatten(3)
        return self.attention(self.attention(x)).flatten(1)[:, :5]


def test_attention_in_steps_and_a_second_call_of_a_module():
    x = images(8)
    maps = attention_maps(Twice(), x)
    assert list(maps) == ["attention", "attention:2"]
    torch.testing.assert_close(maps["attention"], (x[:, :2] @ x[:, :2].mT).softmax(-1))


@pytest.mark.parametrize("masked", [None, "bool", "float", "causal"])
def test_masks_and_scales_of_the_fused_operation(masked):
    q, k, v = torch.rand(3, 2, 3, 7, 4, generator=torch.Generator().manual_seed(0))
    mask = torch.rand(7, 7, generator=torch.Generator().manual_seed(1))
    options = {"scale": 0.3, "is_causal": masked == "causal"}
    if masked in ("bool", "float"):
        options["attn_mask"] = mask < 0.7 if masked == "bool" else mask

    class Fused(nn.Module):
        def forward(self, _):
            return F.scaled_dot_product_attention(q, k, v, **options)

    network, found = Fused(), []
    with attention_hooks(network, found.append):
        within = network(images())
    torch.testing.assert_close(within, network(images()), rtol=0, atol=1e-6)
    a = found[0].probabilities
    assert found[0].module == "" and found[0].values is not None
    torch.testing.assert_close(a @ v, within, rtol=0, atol=1e-6)


def test_a_network_without_attention_has_no_maps():
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(784, 5), nn.Softmax(-1))
    assert attention_maps(network, images()) == {}
    found = attention_gradients(network, images(), 0)
    assert not found.maps and not found.gradients and found.logits.shape == (2, 5)


def test_wrong_targets_are_refused():
    with pytest.raises(ValueError, match="targets: is 7, expected 0 to 4"):
        attention_gradients(vit(), images(), 7)
