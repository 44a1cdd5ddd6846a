"""Train a classifier and see inside it at every checkpoint: `python train.py --help`."""

from vitrine.cli.train import run

if __name__ == "__main__":
    run()
