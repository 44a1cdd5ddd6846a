"""Look inside networks that exist already: `python analyze.py --help`."""

import sys

from vitrine.cli import main

if __name__ == "__main__":
    main(["analyze", *sys.argv[1:]])
