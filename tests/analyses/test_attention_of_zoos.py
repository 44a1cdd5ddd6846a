"""Attention of networks of timm and transformers, small and with random weights, against what they give."""

import pytest
import torch
from torch import nn

from vitrine.analyses.attention_maps import attention_gradients, attention_maps
from vitrine.analyses.attention_structure import attention_structure


def images(height=32, width=48, count=2):
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(0))


TINY = {"img_size": (32, 48), "patch_size": 8, "embed_dim": 16, "depth": 2, "num_heads": 2, "num_classes": 5}


def unfused(network):
    """Each attention's probabilities as the library computes them without fused kernels, by its dropout."""
    for module in network.modules():
        if hasattr(module, "fused_attn"):
            module.fused_attn = False
    kept = {}
    for name, module in network.named_modules():
        if name.endswith("attn_drop") and not isinstance(module, nn.Identity):
            owner = name.rpartition(".")[0]
            module.register_forward_hook(lambda _m, _i, output, owner=owner: kept.update({owner: output}))
    return kept


@pytest.mark.parametrize("options", [{}, {"reg_tokens": 4}, {"class_token": False, "global_pool": "avg"}])
def test_vision_transformers_of_timm(timm, options):
    torch.manual_seed(0)
    network = timm.models.VisionTransformer(**TINY, **options).eval()
    assert network.blocks[0].attn.fused_attn
    found = attention_gradients(network, images(), 1)
    kept = unfused(network)
    with torch.no_grad():
        logits = network(images())
    assert list(found.maps) == ["blocks.0.attn", "blocks.1.attn"]
    for name, a in found.maps.items():
        assert a.shape == (2, 2, *[24 + network.num_prefix_tokens] * 2)
        torch.testing.assert_close(a, kept[name], rtol=0, atol=1e-6)
    torch.testing.assert_close(found.logits, logits, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "options", "windows"),
    [
        ("swin_tiny_patch4_window7_224", {"img_size": 32, "window_size": 4}, 4),
        ("swinv2_tiny_window8_256", {"img_size": 32, "window_size": 4}, 4),
        ("maxvit_rmlp_pico_rw_256", {"img_size": 64}, 64),
        ("coatnet_pico_rw_224", {"img_size": 64}, 1),
        ("deit_tiny_distilled_patch16_224", {"img_size": 64}, 1),
        ("beit_base_patch16_224", {"img_size": 64, "depth": 2, "embed_dim": 48, "num_heads": 4}, 1),
        ("eva02_tiny_patch14_224", {"img_size": 56, "depth": 2}, 1),
        ("mobilevit_xxs", {}, 4),
    ],
)
def test_windowed_and_hybrid_networks_of_timm(timm, name, options, windows):
    torch.manual_seed(0)
    network = timm.create_model(name, num_classes=5, **options).eval()
    side = options.get("img_size", 64)
    maps = attention_maps(network, images(side, side))
    kept = unfused(network)
    with torch.no_grad():
        network(images(side, side))
    assert maps and set(kept) <= set(maps)
    for module, expected in kept.items():
        torch.testing.assert_close(maps[module].reshape(expected.shape), expected, rtol=0, atol=1e-6)
    assert max(a.shape[1] if a.ndim == 5 else 1 for a in maps.values()) == windows
    for a in maps.values():
        torch.testing.assert_close(a.sum(-1), torch.ones_like(a.sum(-1)))
    alone = attention_maps(network, images(side, side)[1:])
    for module, a in alone.items():
        torch.testing.assert_close(a[0], maps[module][1], rtol=1e-3, atol=1e-5)


def test_hiera_s_heads_come_after_its_windows(timm):
    network = timm.create_model("hiera_tiny_224", img_size=64, num_classes=5).eval()
    maps = attention_maps(network, images(64, 64))
    for name, a in maps.items():
        assert a.shape[-3] == network.get_submodule(name).heads
    assert maps["blocks.1.attn"].shape == (2, 4, 2, 16, 64)  # pools its queries


SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "num_labels": 5}


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", ["ViT", "DeiT", "Dinov2WithRegisters", "Swin"])
def test_networks_of_transformers(transformers, kind, implementation):
    options = SMALL | {"image_size": 32, "patch_size": 8}
    if kind == "Swin":
        options = {"image_size": 32, "patch_size": 4, "embed_dim": 8, "window_size": 2, "num_labels": 5}
        options |= {"depths": [2, 2], "num_heads": [2, 2]}
    config = getattr(transformers, f"{kind}Config")(**options)
    config._attn_implementation = implementation
    torch.manual_seed(0)
    network = getattr(transformers, f"{kind}ForImageClassification")(config).eval()
    found = attention_gradients(network, images(32, 32), 1)
    network.set_attn_implementation("eager")
    with torch.no_grad():
        expected = network(images(32, 32), output_attentions=True)
    torch.testing.assert_close(found.logits, expected.logits, rtol=0, atol=1e-5)
    maps = list(found.maps.values())
    if kind == "Swin":  # which gives those of each stage's last block
        maps = maps[1::2]
    for a, kept in zip(maps, expected.attentions, strict=True):
        torch.testing.assert_close(a.reshape(kept.shape), kept, rtol=0, atol=1e-6)


def test_a_network_that_gives_a_dict_of_logits(timm):
    class Wrapper(nn.Module):
        def __init__(self):
            super().__init__()
            self.network = timm.models.VisionTransformer(**TINY)

        def forward(self, images):
            return {"logits": self.network(images)}

    found = attention_gradients(Wrapper(), images(), 0)
    assert list(found.maps) == ["network.blocks.0.attn", "network.blocks.1.attn"]


@pytest.mark.parametrize(
    ("name", "side", "grids", "readers"),
    [
        ("deit_tiny_distilled_patch16_224", 64, {(4, 4)}, [0, 1]),
        ("vit_small_patch16_dinov3", 64, {(4, 4)}, []),  # averages patches beside its registers
        ("beit_base_patch16_224", 64, {(4, 4)}, []),
        ("swin_tiny_patch4_window7_224", 64, {(16, 16), (8, 8), (4, 4), (2, 2)}, []),
        ("maxvit_rmlp_pico_rw_256", 128, {(32, 32), (16, 16), (8, 8), (4, 4)}, []),
        ("mobilevit_xxs", 128, {(16, 16), (8, 8), (4, 4)}, []),
        ("crossvit_tiny_240", 240, {(20, 20), (14, 14)}, []),
    ],
)
def test_tokens_of_every_block_lie_in_its_grid(timm, name, side, grids, readers):
    sized = {} if name.startswith(("mobilevit", "crossvit")) else {"img_size": side}
    sized |= {"depth": 2} if name.startswith("beit") else {}
    torch.manual_seed(0)
    network = timm.create_model(name, num_classes=5, **sized).eval()
    structure = attention_structure(network, images(side, side))
    assert {block.grid.size for block in structure.blocks if block.grid} == grids
    for block in structure.blocks:
        if block.grid:
            cells = block.grid.cells[block.grid.cells >= 0]
            assert cells.sort().values.tolist() == list(range(block.grid.size[0] * block.grid.size[1]))
    assert structure.readers == readers


def test_the_grid_attention_of_maxvit_is_dilated(timm):
    network = timm.create_model("maxvit_rmlp_pico_rw_256", img_size=128, num_classes=5).eval()
    blocks = attention_structure(network, images(128, 128)).blocks
    window = blocks[0].grid.cells[0].view(4, 4)
    assert window.tolist() == [[32 * y + x for x in range(4)] for y in range(4)]
    window = blocks[1].grid.cells[0].view(4, 4)
    assert window.tolist() == [[32 * y + x for x in range(0, 32, 8)] for y in range(0, 32, 8)]


@pytest.mark.parametrize("kind", ["ViT", "Dinov2WithRegisters", "Swin"])
def test_tokens_of_networks_of_transformers(transformers, kind):
    options = SMALL | {"image_size": 32, "patch_size": 8}
    if kind == "Swin":
        options = {"image_size": 32, "patch_size": 4, "embed_dim": 8, "window_size": 2, "num_labels": 5}
        options |= {"depths": [2, 2], "num_heads": [2, 2]}
    config = getattr(transformers, f"{kind}Config")(**options)
    torch.manual_seed(0)
    network = getattr(transformers, f"{kind}ForImageClassification")(config).eval()
    structure = attention_structure(network, images(32, 32))
    sizes = [block.grid.size for block in structure.blocks]
    assert sizes == ([(8, 8), (8, 8), (4, 4), (4, 4)] if kind == "Swin" else [(4, 4), (4, 4)])
    prefix = {"ViT": 1, "Dinov2WithRegisters": 5, "Swin": 0}[kind]
    assert (structure.blocks[0].grid.cells < 0).sum() == prefix
