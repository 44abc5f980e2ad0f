"""Examples of composition: each runs with another kernel, and with another objective, by a word."""

import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]


def run(name: str, out: Path, *options: str, pictures: tuple[str, ...] = ()) -> str:
    """What a script prints, in small; its pictures must show something."""
    command = [sys.executable, str(ROOT / "examples" / f"{name}.py"), "--out", str(out)]
    result = subprocess.run(
        [*command, "--num-steps", "50", *options], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert "Warning" not in result.stderr, result.stderr
    from matplotlib.image import imread

    for picture in pictures or (name,):
        assert np.std(imread(out / f"{picture}.png")) > 0.02
    return result.stdout


def table(told: str, pattern: str, rows: int, told_apart: tuple[int, ...] = ()) -> np.ndarray:
    """The numbers of the rows whose beginning matches, all finite but in columns told apart."""
    found = re.findall(rf"^(?:{pattern}) +([-\d.% einfa]+)$", told, re.MULTILINE)
    assert len(found) == rows, told
    numbers = np.array([[float(word.strip("%")) for word in row.split()] for row in found])
    assert np.isfinite(np.delete(numbers, told_apart, axis=1)).all(), told
    return numbers


@pytest.mark.slow
@pytest.mark.parametrize("words", [("hmc", "dsm"), ("reverse_diffusion", "drl")])
def test_guidance_by_a_classifier_and_without_one(tmp_path, words):
    sampler, objective = words
    options = f"--sampler {sampler} --objective {objective} --count 4 --steps-per-level 1".split()
    told = run("guidance", tmp_path, *options)
    table(told, "guided by a classifier|classifier-free", 7)


@pytest.mark.slow
@pytest.mark.parametrize("words", [("unadjusted_hmc", "dsm"), ("mala", "drl")])
def test_attributes_by_the_algebra(tmp_path, words):
    sampler, objective = words
    options = f"--sampler {sampler} --objective {objective} --count 20 --steps-per-level 2".split()
    told = run("attributes", tmp_path, *options)
    numbers = table(told, "data|everything|three|slanted|thick|three AND .*?", 7)
    assert (numbers[:, 6] > 0).all()  # the diversity
    base = numbers[0]  # a tenth of the digits are threes, a third has each attribute
    np.testing.assert_allclose(base[[0, 2, 4]], [10.2, 33.3, 33.3], atol=1.0)


@pytest.mark.slow
@pytest.mark.parametrize("words", [("hmc", "dsm"), ("mala", "drl")])
def test_a_learned_prior_of_inverse_problems(tmp_path, words):
    kernel, objective = words
    options = f"--kernel {kernel} --objective {objective} --count 1 --num-samples 20".split()
    told = run("inverse", tmp_path, *options)
    table(told, rf"(?:inpainting|deblurring) +0 +(?:{kernel} alone|tempered)", 4)
    assert len(re.findall(r"90% intervals hold \d", told)) == 2


@pytest.mark.slow
@pytest.mark.parametrize(
    ("problem", "compositions", "samplers", "objective"),
    [
        ("product", ("product",), ("langevin", "mala", "hmc"), "dsm"),
        ("mixture", ("mixture",), ("reverse_diffusion",), "drl"),
        ("negation", ("negation", "bounded-negation"), ("unadjusted_hmc",), "dsm"),
    ],
)
def test_compositions_of_the_plane(tmp_path, problem, compositions, samplers, objective):
    words = f"--problems {problem} --objective {objective} --num-samples 50 --samplers"
    names = tuple(f"composition-{name}" for name in compositions)
    told = run("composition", tmp_path, *words.split(), *samplers, pictures=names)
    if problem != "product":
        table(told, "|".join(samplers), len(compositions))
        return
    for numbers in table(told, "|".join(samplers), len(samplers), told_apart=(2,)):
        few = 50 * min(numbers[1], 1 - numbers[1]) < 2.5  # draws on one side have no covariance
        assert np.isfinite(numbers[2]) != few, told
