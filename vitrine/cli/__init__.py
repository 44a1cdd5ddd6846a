"""The programs, one file each: arguments in, exit status out."""

import sys

import vitrine
from vitrine.core.registry import Registry, UnknownName
from vitrine.core.settings import SettingError

# also run by `analyze.py COMMAND ...`
_COMMANDS = ("dream", "style", "samples", "object", "hide", "export", "compare", "report", "sync", "convert")
_PROGRAMS = ("train", "analyze", "follow", "lidar", *_COMMANDS)
COMMANDS = Registry("command", {name: f"vitrine.cli.{name}:main" for name in _COMMANDS})
PROGRAMS = Registry("program", {name: f"vitrine.cli.{name}:main" for name in _PROGRAMS})
ABOUT = """Train image classifiers in a glass case: at every checkpoint, see what the network has learned.

    vitrine train [RECIPE ...] [key=value ...]   train, and look at every checkpoint
    vitrine analyze RUN [key=value ...]          look inside a run, a checkpoint or given weights
    vitrine follow RUN [key=value ...]           look at a run's checkpoints while it trains elsewhere
    vitrine dream RUN image=FILE                 a photograph as a layer dreams it
    vitrine style RUN content=FILE style=FILE    one image in the style of another
    vitrine samples RUN image=FILE               the training images that speak for what it says of one
    vitrine object RUN mesh=turtle target=CLASS  a texture that fools it from all sides
    vitrine lidar [RECIPE ...] [key=value ...]   train a detector of cars in scans of a simulated LiDAR
    vitrine hide RUN                             a mesh on the roof that hides cars from a LiDAR detector
    vitrine export RUN format=onnx               its network for other programs
    vitrine compare RUN RUN ...                  several runs beside each other on one page
    vitrine report RUN [RUN ...]                 a workspace and a report on Weights & Biases
    vitrine sync RUN [RUN ...]                   upload what was logged offline
    vitrine convert FOLDER OUT                   a folder of images as chunks for data.name=streaming
    vitrine --version

`vitrine COMMAND --help` tells more of each. In a clone, `python train.py` and `python analyze.py` are
`vitrine train` and `vitrine analyze`."""


def main(arguments: list[str] | None = None) -> None:
    """Run the program that the first argument names with the others; `sys.argv[1:]` unless given.

    Ends the process with status 2 after wrong input, see `command_line.run_cli`.
    """
    words = sys.argv[1:] if arguments is None else arguments
    if not words or words[0] in ("-h", "--help", "help"):
        print(ABOUT)
    elif words[-1] in ("--version", "-V"):
        print(f"vitrine {vitrine.__version__}")
    else:
        from vitrine.cli.command_line import run_cli  # not above: seconds of imports

        run_cli(_run_program, words)


def _run_program(words: list[str]) -> None:
    from vitrine.cli.arguments import run_command
    from vitrine.cli.help import has_settings, is_help_asked, print_command_help

    name, *arguments = words
    try:
        PROGRAMS.check(name)
    except UnknownName as error:
        raise SettingError("vitrine", str(error)) from None
    if name in COMMANDS:
        run_command(name, arguments)
    elif is_help_asked(arguments) and has_settings(place := f"{__name__}.{name}"):
        print_command_help(place)
    else:
        PROGRAMS[name](arguments)
