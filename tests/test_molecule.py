"""The example of a molecule: its closed forms, and what parallel tempering finds."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "examples" / "molecule.py"
MAX_Z = 5.0


@pytest.fixture(scope="module")
def molecule() -> ModuleType:
    spec = importlib.util.spec_from_file_location("molecule", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_closed_forms_of_the_free_chain(molecule: ModuleType) -> None:
    random = np.random.default_rng(2)
    lengths, turns = random.uniform(0.5, 1.5, (5, 7)), random.uniform(-3, 3, (5, 6))
    read = molecule.shape_of(molecule.joined(lengths, turns, random))
    np.testing.assert_allclose(read[0], lengths, atol=1e-8)
    np.testing.assert_allclose(read[1], turns, atol=1e-8)

    beads = molecule.independent(100_000)
    lengths, turns = molecule.shape_of(beads)
    known, left = molecule.closed_forms(), np.mean(turns > 0, axis=1)
    stiffness = molecule.STIFFNESS  # moments of r times a normal law, whose mass is above 0
    np.testing.assert_allclose(known["bond length"], 1 + 1 / stiffness, rtol=1e-6)
    np.testing.assert_allclose(known["bond length squared"], 1 + 3 / stiffness, rtol=1e-6)
    seen = {
        "bond length": lengths,
        "bond length squared": lengths**2,
        "bonds below the median length": lengths < known["_median length"],
        "bonds above the 95 % quantile": lengths > known["_long"],
        "cosine of a turn": np.cos(turns),
        "turns below the median angle": np.abs(turns) < known["_median angle"],
        "turns above the 95 % quantile": np.abs(turns) > known["_wide"],
        "variance of their number": (turns.shape[1] * (left - 0.5)) ** 2,
        "end-to-end distance squared": molecule.distance(beads, 0, -1) ** 2,
    }
    for name, values in seen.items():
        error = np.std(values) / np.sqrt(values.size)
        assert abs(np.mean(values) - known[name]) < MAX_Z * error, name
    square = seen["end-to-end distance squared"]
    uncorrelated = lengths.shape[1] * known["bond length squared"]  # of bonds that do not know
    assert abs(np.mean(square) - uncorrelated) > 50 * np.std(square) / np.sqrt(len(square))


def test_energies_are_those_of_bonds_and_turns(molecule: ModuleType) -> None:
    """In polar coordinates, against NumPy; and the first bead is where it was put."""
    beads = molecule.independent(3)
    lengths, turns = molecule.shape_of(beads)
    energies = molecule.molecules()
    far = np.subtract.outer(np.arange(8), np.arange(8)) <= -4
    for row in range(3):
        at = {name: beads[row, index] for index, name in enumerate(molecule.BEADS[1:], 1)}
        free = 0.5 * molecule.STIFFNESS * np.sum((lengths[row] - 1) ** 2)
        free += molecule.TURN * np.sum((np.cos(turns[row]) - 0.5) ** 2)
        apart = np.linalg.norm(beads[row, :, None] - beads[row, None], axis=-1)
        core = np.sum(molecule.REPULSION * np.exp(-0.5 * (apart[far] / 0.3) ** 2))
        well = molecule.CONTACT * np.exp(-0.5 * ((apart[molecule.PAIR] - 1) / 0.25) ** 2)
        expected = {"free chain": free, "chain": free + core}
        expected["chain with contact"] = free + core - well
        assert expected.keys() == energies.keys()
        for name, value in expected.items():
            np.testing.assert_allclose(float(energies[name].at(at)), value, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("kernel", "count"), [("hmc", "500"), ("mala", "1500")])
def test_tempering_goes_round_where_a_kernel_stays(tmp_path: Path, kernel: str, count: str) -> None:
    command = [sys.executable, str(SCRIPT), "--kernel", kernel, "--num-samples", count]
    result = subprocess.run([*command, "--out", str(tmp_path)], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    told = result.stdout
    rows = re.findall(r"^\D.{31} +(\d\S+) +(\S+) +(\S+) +(\S+)$", told, re.MULTILINE)
    assert len(rows) == 10, told
    assert all(abs(float(z)) < MAX_Z for *_, z in rows), told
    assert told.count("round trips a chain") == 3
    number = r" +([\d.]+)"
    contact = re.findall(rf"^in contact{number * 4}$", told, re.MULTILINE)
    left = re.findall(rf"^turns to the left ([\d.]+){number * 3}$", told, re.MULTILINE)
    assert len(contact) == len(left) == 3, told
    alone, chain, ring = (float(row[3]) for row in left)  # R-hat
    assert alone > 1.4
    assert chain < 1.2
    assert ring < 1.2
    assert all(abs(float(row[0]) - 0.5) < MAX_Z * float(row[1]) for row in left[1:])
    by_weights = re.findall(r"by weights .*: (\S+) ± (\S+)", told)
    assert len(by_weights) == 2
    for row, (share, error) in zip(contact[1:], by_weights, strict=True):
        allowed = MAX_Z * np.hypot(float(row[1]), float(error))
        assert abs(float(row[0]) - float(share)) < allowed, told
        assert float(error) < 0.005
    assert float(by_weights[1][0]) > 10 * float(by_weights[0][0])  # the contact holds
    from matplotlib.image import imread

    for name in ("conformations", "distances", "closed_forms", "mixing"):
        assert np.std(imread(tmp_path / f"{name}.png")) > 0.02, name
