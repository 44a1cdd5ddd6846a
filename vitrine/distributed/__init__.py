"""Several processes: who they are, what they agree on, and how they end when interrupted."""
