"""Examples on digits that no algebra composes: they run in small, and tell what they should."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]


def run(name: str, out: Path, options: str, pictures: list[str]) -> dict[str, list[float]]:
    """The numbers of each row that a script prints; its pictures must show something."""
    command = [sys.executable, str(ROOT / "examples" / f"{name}.py"), "--out", str(out)]
    result = subprocess.run([*command, *options.split()], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert "Warning" not in result.stderr, result.stderr
    from matplotlib.image import imread

    for picture in pictures:
        assert np.std(imread(out / f"{picture}.png")) > 0.02, picture
    rows = re.findall(r"^(\w.*?) {2,}([-\d.% ]+)$", result.stdout, re.MULTILINE)
    told = {row: [float(word.strip("%")) for word in words.split()] for row, words in rows}
    assert all(np.isfinite(numbers).all() for numbers in told.values()), told
    return told


@pytest.mark.slow
def test_a_classifier_as_a_density(tmp_path):
    """A tenth of the steps: the joint energy tells what is no digit, and still tells the digits."""
    pictures = ["jem_digits", "jem_strips", "jem_energies", "jem_reliability"]
    options = "--classifier-steps 300 --joint-steps 100 --drawn 4 --thin 20"
    told = run("jem", tmp_path, options, pictures)
    alone, joint = told["accuracy"]
    assert min(alone, joint) > 0.93
    assert told["AUROC, uniform noise"][1] > 0.99
    far = {name: numbers[0] for name, numbers in told.items() if "steps" in name}
    assert len(far) == 5
    assert told["test digits"][0] < min(far.values())
    assert max(far.values()) < told["uniform noise"][0] / 2


@pytest.mark.slow
def test_digits_down_the_ladder(tmp_path):
    options = "--sampler reverse_diffusion --num-steps 60 --count 20 --thin 2"
    told = run("ladder", tmp_path, options, ["ladder_images", "ladder_chains"])
    assert len(told) == 13
    assert told["test digits"][0] == min(numbers[0] for numbers in told.values())
