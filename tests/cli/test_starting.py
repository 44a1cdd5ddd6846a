"""What a program imports before it has answered: a mistyped setting need not wait for torch."""

import subprocess
import sys

from vitrine.cli import COMMANDS, PROGRAMS

HEAVY = ("torch", "lightning", "torchvision", "torchmetrics", "scipy", "matplotlib", "wandb", "numpy", "PIL")
PROGRAM = f"""
import sys

from vitrine import cli

MISTAKES = [["train", "data.batchsize=3"], ["train", "optimizer.lr=x"], ["train", "model.name=convnt"]]
MISTAKES += [[name, "x", "sped=3"] for name in sorted(cli.COMMANDS)]
for words in MISTAKES:
    try:
        cli.main(words)
    except SystemExit as ended:
        assert ended.code == 2
for program in cli.PROGRAMS:
    print("help on", program)
    cli.main([program, "--help"])
print(*(name for name in {HEAVY} if name in sys.modules), file=sys.stderr)
"""


def test_mistakes_and_help_are_answered_without_heavy_imports(tmp_path):
    ran = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    mistyped, wrong, unknown, *of_commands, imported = ran.stderr.splitlines()
    assert "did you mean data.batch_size" in mistyped
    assert "optimizer.lr: is 'x', expected float" in wrong
    assert "did you mean convnet" in unknown
    assert len(of_commands) == len(COMMANDS)
    assert all("sped: there is no such setting here" in answer for answer in of_commands)
    assert imported == ""
    assert ran.stdout.count("analysis.features.steps=") == 2
    of_programs = ran.stdout.split("help on ")[1:]
    assert len(of_programs) == len(PROGRAMS)
    assert all(
        f"python -m vitrine {name}" in text or f"python analyze.py {name}" in text
        for name, text in zip(PROGRAMS, of_programs)
        if name in COMMANDS
    )
    assert all("key=default   meaning [type]" in text for text in of_programs)
