"""`python -m fastworker_worker start …`: what a control plane starts as its own workers."""

import sys

from fastworker.cli import main

main(["worker", *sys.argv[1:]])
