"""Look inside networks that exist already: `python analyze.py --help`."""

from vitrine.cli.analyze import run

if __name__ == "__main__":
    run()
