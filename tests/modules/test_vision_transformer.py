import pytest
import torch
import torch.nn.functional as F
import torchvision

from vitrine.modules import load_network
from vitrine.modules.vision_transformer import SmallVisionTransformer, StochasticDepth, sines_and_cosines

TINY = {"image_size": 8, "width": 12, "depth": 2, "heads": 3}
IMAGES = torch.rand(3, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def by_hand(network, images):
    """The network's logits after the formulas of Dosovitskiy 2021, attention with its softmax written out."""
    state = network.state_dict()

    def linear(x, name):
        return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]

    def norm(x, name):
        return F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"])

    patches = images.unfold(2, 4, 4).unfold(3, 4, 4).permute(0, 2, 3, 1, 4, 5).flatten(3).flatten(1, 2)
    kernel = state["patch_embed.weight"].flatten(1)
    x = patches @ kernel.T + state["patch_embed.bias"] + state["pos_embed"]
    x = torch.cat([state["prefix_tokens"].expand(len(x), -1, -1), x], 1)
    for i in range(2):
        tokens = norm(x, f"blocks.{i}.norm1")
        query, key, value = linear(tokens, f"blocks.{i}.attn.qkv").split(12, -1)
        heads = []
        for h in range(3):
            q, k, v = (part[..., 4 * h : 4 * h + 4] for part in (query, key, value))
            heads.append((q @ k.mT / 2).softmax(-1) @ v)
        x = x + linear(torch.cat(heads, -1), f"blocks.{i}.attn.proj")
        hidden = F.gelu(linear(norm(x, f"blocks.{i}.norm2"), f"blocks.{i}.mlp.fc1"))
        x = x + linear(hidden, f"blocks.{i}.mlp.fc2")
    x = norm(x, "norm")
    return linear(x[:, 0] if network.pooling == "class" else x[:, network.prefix :].mean(1), "head")


@pytest.mark.parametrize(
    ("pooling", "registers", "prefix"), [("class", 0, 1), ("class", 2, 3), ("mean", 2, 2)]
)
def test_the_logits_are_those_of_the_formulas(pooling, registers, prefix):
    torch.manual_seed(0)
    network = SmallVisionTransformer(5, pooling=pooling, registers=registers, **TINY)
    assert network.prefix == prefix
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    torch.testing.assert_close(network(IMAGES), by_hand(network, IMAGES))


def test_stochastic_depth_leaves_branches_out_in_training_alone_and_keeps_the_mean():
    torch.manual_seed(0)
    drop, x = StochasticDepth(0.25), torch.ones(4000, 1, 2)
    out = drop(x)
    assert out.unique().tolist() == pytest.approx([0, 4 / 3])
    assert (out[:, 0, 0] == out[:, 0, 1]).all() and abs(out.mean() - 1) < 0.05
    assert drop.eval()(x) is x
    network = load_network("vit_tiny_4", classes=5, stochastic_depth=0.3, **TINY | {"depth": 4})
    rates = [module.rate for module in network.modules() if isinstance(module, StochasticDepth)]
    assert rates == pytest.approx([0, 0.1, 0.2, 0.3])


def test_position_embeddings_tell_rows_and_columns_apart():
    waves = sines_and_cosines(3, 16).unflatten(0, (3, 3))
    assert torch.equal(waves[0, :, :8], waves[0, :1, :8].expand(3, 8))  # the row's half is the row's
    assert torch.equal(waves[:, 0, 8:], waves[:1, 0, 8:].expand(3, 8))
    assert len(waves.flatten(0, 1).unique(dim=0)) == 9


@pytest.mark.parametrize(
    "options", [{}, {"conv_stem": True}, {"patch_size": 8, "conv_stem": True, "registers": 1}]
)
@pytest.mark.parametrize(("channels", "side"), [(3, 64), (1, 32)])
def test_it_is_built_for_the_images_of_the_data(options, channels, side):
    with torch.device("meta"):
        network = load_network("vit_tiny_4", classes=7, channels=channels, image_size=side, options=options)
        assert network(torch.rand(2, channels, side, side)).shape == (2, 7)
        assert network.pos_embed.shape[1] == (side // options.get("patch_size", 4)) ** 2
        with pytest.raises(ValueError, match=rf"images are \[{channels}, 24, 24\]"):
            network(torch.rand(2, channels, 24, 24))


def test_torchvisions_transformer_is_its_own_of_these_sizes():
    torch.manual_seed(0)
    sizes = {"patch_size": 4, "hidden_dim": 12, "num_layers": 1, "num_heads": 2}
    ours = load_network("vit", classes=5, image_size=8, mean=[0] * 3, std=[1] * 3, **sizes).eval()
    reference = torchvision.models.VisionTransformer(8, 4, 1, 2, 12, 48, num_classes=5).eval()
    state = {k: v for k, v in ours.state_dict().items() if not k.startswith("normalize.")}
    reference.load_state_dict(state)
    assert torch.equal(ours(IMAGES), reference(IMAGES))
    grey = load_network("vit", classes=5, image_size=8, channels=1, **sizes)
    assert grey(IMAGES[:, :1]).shape == (3, 5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 30}, "images of 30 pixels are not cut into patches of 4: expected a divisor"),
        ({"width": 10}, "10 channels are not divided among 3 heads: expected a divisor"),
        ({"pooling": "max"}, "pooling is 'max', expected one of mean, class"),
        ({"stochastic_depth": 1.0}, "stochastic_depth is 1.0, expected at least 0 and below 1"),
        ({"patch_size": 1, "conv_stem": True}, "conv_stem: patch_size is 1, expected a power of 2"),
        ({"registers": -1}, "registers is -1, expected at least 0"),
        ({"depht": 3}, "depht: vit_tiny_4 has no such option; did you mean depth"),
    ],
)
def test_what_cannot_be_built_is_refused_in_a_line(options, message):
    with pytest.raises(ValueError, match=message):
        load_network("vit_tiny_4", classes=5, **{**TINY, **options})
    with pytest.raises(ValueError, match="image_size: vit_tiny_4 is built for one"):
        load_network("vit_tiny_4", classes=5)
