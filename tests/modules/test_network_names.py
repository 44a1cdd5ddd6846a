from torchvision import models

from vitrine.modules.network_names import torchvision_names


def test_the_names_that_are_read_are_those_that_torchvision_registers():
    assert list(torchvision_names()) == models.list_models(module=models)
