"""`python -m ldm` is the `ldm` command."""

from ldm.cli import main

if __name__ == "__main__":
    main()
