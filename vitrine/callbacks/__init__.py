"""When things happen during training: analyses at checkpoints, exact resume."""
