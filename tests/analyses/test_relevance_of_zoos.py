"""Relevance of networks of timm and transformers: torchvision's on the same weights, or refused by name."""

import pytest
import torch
import torchvision
from torch import nn

from vitrine.analyses.relevance import NoTokenAttention, attention_gradient, chefer, legrad

MAPS = [legrad, chefer, attention_gradient]
TARGETS = torch.tensor([1, 4])
WIDTH, HEADS, HIDDEN, DEPTH = 16, 2, 32, 3


def images(side=32):
    return torch.rand(2, 3, side, side, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def original():
    torch.manual_seed(0)
    arguments = {"image_size": 32, "patch_size": 8, "num_layers": DEPTH, "num_heads": HEADS}
    network = torchvision.models.VisionTransformer(
        **arguments, hidden_dim=WIDTH, mlp_dim=HIDDEN, num_classes=5
    ).eval()
    for parameter in network.parameters():  # biases and scales are not the same everywhere
        nn.init.normal_(parameter, parameter.mean().item(), 0.3)
    return network


def copy(pairs):
    with torch.no_grad():
        for target, source in pairs:
            target.copy_(source)


def copy_layer(target, source):
    copy([(target.weight, source.weight), (target.bias, source.bias)])


def agree(network, original):
    with torch.no_grad():
        logits = network(images())
        logits = logits if isinstance(logits, torch.Tensor) else logits.logits
        torch.testing.assert_close(logits, original(images()), rtol=1e-4, atol=1e-4)
    for attribute in MAPS:
        expected = attribute(original, images(), TARGETS)
        scale = expected.max().item()
        assert scale > 0
        torch.testing.assert_close(attribute(network, images(), TARGETS), expected, rtol=0, atol=1e-4 * scale)


def test_timm_on_the_weights_of_torchvision(timm, original):
    sizes = {"img_size": 32, "patch_size": 8, "embed_dim": WIDTH, "depth": DEPTH, "num_heads": HEADS}
    network = timm.models.VisionTransformer(**sizes, mlp_ratio=HIDDEN / WIDTH, num_classes=5).eval()
    copy([(network.cls_token, original.class_token), (network.pos_embed, original.encoder.pos_embedding)])
    copy_layer(network.patch_embed.proj, original.conv_proj)
    copy_layer(network.norm, original.encoder.ln)
    copy_layer(network.head, original.heads.head)
    for block, source in zip(network.blocks, original.encoder.layers, strict=True):
        attention = source.self_attention
        copy(
            [(block.attn.qkv.weight, attention.in_proj_weight), (block.attn.qkv.bias, attention.in_proj_bias)]
        )
        copy_layer(block.attn.proj, attention.out_proj)
        copy_layer(block.norm1, source.ln_1)
        copy_layer(block.norm2, source.ln_2)
        copy_layer(block.mlp.fc1, source.mlp[0])
        copy_layer(block.mlp.fc2, source.mlp[3])
    assert network.blocks[0].attn.fused_attn
    assert network.norm.eps == original.encoder.ln.eps
    agree(network, original)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_transformers_on_the_weights_of_torchvision(transformers, original, implementation):
    config = transformers.ViTConfig(
        hidden_size=WIDTH, num_hidden_layers=DEPTH, num_attention_heads=HEADS, intermediate_size=HIDDEN,
        image_size=32, patch_size=8, num_labels=5, layer_norm_eps=original.encoder.ln.eps,
    )  # fmt: skip
    config._attn_implementation = implementation
    network = transformers.ViTForImageClassification(config).eval()
    embeddings, layers = network.vit.embeddings, network.vit.layers
    copy([(embeddings.cls_token, original.class_token)])
    copy([(embeddings.position_embeddings, original.encoder.pos_embedding)])
    copy_layer(embeddings.patch_embeddings.projection, original.conv_proj)
    copy_layer(network.vit.layernorm, original.encoder.ln)
    copy_layer(network.classifier, original.heads.head)
    for block, source in zip(layers, original.encoder.layers, strict=True):
        attention = source.self_attention
        weights, biases = attention.in_proj_weight.chunk(3), attention.in_proj_bias.chunk(3)
        projections = [block.attention.q_proj, block.attention.k_proj, block.attention.v_proj]
        copy([(layer.weight, weight) for layer, weight in zip(projections, weights)])
        copy([(layer.bias, bias) for layer, bias in zip(projections, biases)])
        copy_layer(block.attention.o_proj, attention.out_proj)
        copy_layer(block.layernorm_before, source.ln_1)
        copy_layer(block.layernorm_after, source.ln_2)
        copy_layer(block.mlp.fc1, source.mlp[0])
        copy_layer(block.mlp.fc2, source.mlp[3])
    agree(network, original)


@pytest.mark.parametrize("kind", ["DeiT", "Dinov2WithRegisters", "Beit"])
def test_other_networks_of_transformers_have_maps_of_their_patches(transformers, kind):
    options = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": HEADS, "num_labels": 5}
    config = getattr(transformers, f"{kind}Config")(**options, image_size=32, patch_size=8)
    torch.manual_seed(0)
    network = getattr(transformers, f"{kind}ForImageClassification")(config).eval()
    for attribute in MAPS:
        maps = attribute(network, images(), TARGETS)
        assert maps.shape == (2, 4, 4) and maps.amax((1, 2)).min() > 0


@pytest.mark.parametrize(
    "name, options, has, reason",
    [
        ("vit_tiny_patch16_224", {"img_size": 64, "depth": 2}, "lca", ""),
        ("vit_medium_patch16_gap_256", {"img_size": 64, "depth": 2}, "lca", ""),
        ("vit_base_patch16_reg4_gap_256", {"img_size": 64, "depth": 2, "embed_dim": 48}, "lca", ""),
        ("deit_tiny_distilled_patch16_224", {"img_size": 64, "depth": 2}, "lca", ""),
        ("eva02_tiny_patch14_224", {"img_size": 56, "depth": 2}, "lca", ""),
        (
            "swin_tiny_patch4_window7_224",
            {"img_size": 32, "window_size": 4},
            "",
            "windows of 16|among 1 tokens",
        ),
        ("swin_tiny_patch4_window7_224", {"img_size": 64, "window_size": 2}, "a", "windows of 4 tokens"),
        ("cait_xxs24_224", {"img_size": 64, "depth": 2}, "", "from 1 queries"),
        ("pvt_v2_b0", {}, "a", "queries to"),
        ("resnet10t", {}, "", "the network computes no attention"),
    ],
)
def test_networks_of_timm(timm, name, options, has, reason):
    torch.manual_seed(0)
    network = timm.create_model(name, num_classes=5, **options).eval()
    side = options.get("img_size", 64)
    for attribute in MAPS:
        if attribute.__name__[0] in has:
            maps = attribute(network, images(side), TARGETS)
            assert maps.ndim == 3 and maps.amax((1, 2)).min() > 0
        else:
            with pytest.raises(NoTokenAttention, match=reason):
                attribute(network, images(side), TARGETS)
