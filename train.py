"""`python train.py fit -c CONFIG` is `ldm fit -c CONFIG`; `validate` likewise."""

import sys

from ldm.cli import main

if __name__ == "__main__":
    main(sys.argv[1:] or ["--help"])
