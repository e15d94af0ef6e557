"""The control plane: holds the queue, dispatches, keeps results."""
