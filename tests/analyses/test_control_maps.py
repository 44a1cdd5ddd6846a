import numpy as np
import torch
from scipy import ndimage

from vitrine.analyses.control_maps import control_maps, sobel_edges


def test_the_controls_know_the_image_or_nothing():
    images = torch.rand(3, 3, 12, 16, generator=torch.Generator().manual_seed(0))
    indices = torch.tensor([4, 2, 9])
    maps = control_maps(images, indices, seed=5)
    assert list(maps) == ["random", "centre", "edges"]
    assert all(values.shape == (3, 12, 16) and (values >= 0).all() for values in maps.values())
    # a random map belongs to its image, whatever stands beside it
    assert torch.equal(control_maps(images[1:2], indices[1:2], seed=5)["random"][0], maps["random"][1])
    assert not torch.equal(control_maps(images, indices, seed=6)["random"], maps["random"])
    centre = maps["centre"][0]
    assert torch.allclose(centre, centre.flip(0, 1)) and centre.argmax() in (5 * 16 + 7, 6 * 16 + 8)


def test_the_edges_are_scipys():
    image = torch.rand(1, 3, 9, 11, generator=torch.Generator().manual_seed(1))
    grey = image[0].mean(0).numpy()
    along = [ndimage.sobel(grey, axis, mode="nearest") for axis in (0, 1)]
    np.testing.assert_allclose(sobel_edges(image)[0].numpy(), np.hypot(*along), atol=1e-5)
