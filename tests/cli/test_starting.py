"""What a program imports before it has answered: a mistyped setting need not wait for torch."""

import subprocess
import sys

HEAVY = ("torch", "lightning", "torchvision", "torchmetrics", "scipy", "matplotlib", "wandb", "numpy", "PIL")
PROGRAM = f"""
import sys

from vitrine import cli

for words in [["train", "data.batchsize=3"], ["train", "optimizer.lr=x"], ["train", "model.name=convnt"]]:
    try:
        cli.main(words)
    except SystemExit as ended:
        assert ended.code == 2
for program in ("train", "analyze", "follow"):
    cli.main([program, "--help"])
print(*(name for name in {HEAVY} if name in sys.modules), file=sys.stderr)
"""


def test_mistakes_and_help_are_answered_without_heavy_imports(tmp_path):
    ran = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120)
    assert ran.returncode == 0, ran.stderr
    mistyped, wrong, unknown, imported = ran.stderr.splitlines()
    assert "did you mean data.batch_size" in mistyped
    assert "optimizer.lr: is 'x', expected float" in wrong
    assert "did you mean convnet" in unknown
    assert imported == ""
    assert ran.stdout.count("analysis.features.steps=") == 2
