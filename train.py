"""Train a classifier and see inside it at every checkpoint: `python train.py --help`."""

import sys

from vitrine.cli import main

if __name__ == "__main__":
    main(["train", *sys.argv[1:]])
