"""Training objectives: `objective(network, images, labels) -> (loss, logits)`."""
