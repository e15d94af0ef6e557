"""`python -m fastworker`: the command `fastworker`, where its script is not on the path."""

from fastworker.cli import main

main()
