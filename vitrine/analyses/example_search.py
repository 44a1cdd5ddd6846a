"""The images that excite every unit of some layers most, found in one streaming pass."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from vitrine.analyses.base import as_float
from vitrine.analyses.hooks import modules_at, output_hooks
from vitrine.analyses.layout import layouts
from vitrine.analyses.top_k import RunningTop, TopExamples
from vitrine.core.memory_format import channels_last
from vitrine.core.network_scopes import in_eager_eval_mode

PIXELS_AT_ONCE, LEAST_AT_ONCE = 64 * 64 * 64, 8  # on a CPU; measured (BENCHMARKS.md)


@in_eager_eval_mode
def top_examples(
    network: nn.Module,
    loader: Iterable[Sequence],
    layers: Sequence[str],
    k: int = 9,
    peaks_of: Mapping[str, Sequence[int]] | None = None,
    on_logits: Callable[[Tensor, Tensor], None] | None = None,
) -> dict[str, TopExamples]:
    """For every unit of the layers, the k images on which its largest activation over space is largest.

    One streaming pass for all layers and units, no deeper than the deepest layer, in eval mode; activations
    are not kept. Ties go to the lower index, then to the upper, left position, so that neither batch size
    nor order matters. Negative activations count like any other; a map that holds a NaN counts as -inf.

    Args:
        loader: batches (images, labels), images uint8 or float in [0, 1], in the data set's order; or
            (images, labels, indices, ...) in any order, where repeated indices (a sampler's padding) are
            skipped.
        layers: dotted names of submodules.
        k: images a unit; all, where there are fewer.
        peaks_of: layer -> units whose largest activation on every image is kept (four bytes each).
        on_logits: called with the logits and labels of each batch; the pass then goes on to the logits.

    Returns:
        layer -> values, indices, positions, labels and, of the units in `peaks_of`, peaks; on the CPU.

    Raises:
        UnknownName: there is no such layer.
        ValueError: an empty loader, k below 1, a layer that is not reached, or whose maps change their size.
    """
    if k < 1:
        raise ValueError(f"k is {k}, expected at least 1")
    modules_at(network, layers)
    device = next((p.device for p in network.parameters()), torch.device("cpu"))
    peaks_of = peaks_of or {}
    running = {layer: RunningTop(k, device.type != "cpu", peaks_of.get(layer, ())) for layer in layers}
    order: list[Tensor] = []
    labels: list[Tensor] = []
    seen: set[int] = set()
    count = 0
    with torch.no_grad():
        for batch in loader:
            images = as_float(batch[0].to(device))
            indices = batch[2].cpu() if len(batch) > 2 else torch.arange(count, count + len(images))
            count += len(images)
            is_new = None
            if len(batch) > 2:
                new = [index not in seen and not seen.add(index) for index in indices.tolist()]
                is_new = torch.tensor(new, device=device)
            order.append(indices)
            labels.append(batch[1].cpu())
            logits = _update(network, images, running, indices.to(device), is_new, on_logits is None)
            if on_logits is not None:
                on_logits(logits, batch[1])
    if not count:
        raise ValueError("the loader gave no images")
    known, places = torch.cat(order).sort()
    known_labels = torch.cat(labels)[places]
    results = {}
    for layer, top in running.items():
        found = top.result()
        rows = torch.searchsorted(known, found.indices.contiguous())
        results[layer] = replace(found, labels=known_labels[rows])
    return results


def _update(
    network: nn.Module,
    images: Tensor,
    running: dict[str, RunningTop],
    indices: Tensor,
    is_new: Tensor | None,
    stop: bool,
) -> Tensor | None:
    """Update the lists; the logits, unless the pass stops at the deepest layer."""
    layout = layouts(network, images, list(running))
    if not images.is_cuda:  # there float32 is no faster so
        images = channels_last(network, images)

    def update_few(few: slice) -> Tensor | None:
        def update(layer: str, output: Tensor) -> None:  # at once: an in-place ReLU may overwrite the output
            new = None if is_new is None else is_new[few]
            running[layer].update(layout[layer].maps(output), indices[few], new)

        with output_hooks(network, list(running), update, stop):
            return network(images[few])
        return None

    count = images_in_cache(images)
    logits = [update_few(slice(start, start + count)) for start in range(0, len(images), count)]
    return None if stop else torch.cat(logits)


def images_in_cache(images: Tensor) -> int:
    """How many of the images [B, C, H, W] go through the network together: on a CPU few, whose maps the cache
    still holds when the next layer, and the search for maxima, read them."""
    height, width = images.shape[-2:]
    return len(images) if images.is_cuda else max(LEAST_AT_ONCE, PIXELS_AT_ONCE // (height * width))
