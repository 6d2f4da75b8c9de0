"""Training: the only owner of TrainState."""
