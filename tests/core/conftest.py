"""How Hypothesis works in these tests."""

from hypothesis import settings

# A deadline per example measures the machine and not the code.
settings.register_profile("fastworker", deadline=None)
settings.load_profile("fastworker")
