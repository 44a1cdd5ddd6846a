"""Adversarial attacks: dataclasses called on (network, images, labels), images in [0, 1]."""
