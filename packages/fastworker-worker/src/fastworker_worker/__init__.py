"""The worker: takes tasks from the control plane and runs them."""
