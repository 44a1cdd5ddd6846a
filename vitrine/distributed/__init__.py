"""Several processes: which rank each is, collectives among them, signals, and requeueing their job."""
