"""`python sample.py RUN` is `ldm sample RUN`."""

import sys

from ldm.cli import main

if __name__ == "__main__":
    main(["sample", *sys.argv[1:]])
