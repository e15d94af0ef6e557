"""A script without `async`."""
