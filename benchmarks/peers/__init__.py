"""The task queues that we compare with, each at its best honest configuration on two cores."""
