"""What the tests with real processes share: a cluster in a folder, waiting, a journal, task functions."""
