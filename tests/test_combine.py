"""Kernels made of kernels."""

import inspect
import warnings
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import energia as en
from energia.samplers import MALA, NUTS, BlockGibbs, Cycle, RandomKernel, Repeat
from energia.testing import Target, check_sampler
from energia.testing._targets import discrete, mixed

pytestmark = pytest.mark.filterwarnings("ignore::energia.ConvergenceWarning")
KINDS = discrete()[0]
NORMAL = Target(
    "a Gaussian",
    en.Gaussian([1.0, -1.0], covariance=[[1.0, 0.5], [0.5, 1.0]]),
    mean={"x": np.array([1.0, -1.0])},
    variance={"x": np.ones(2)},
    expectations={"E x[0] x[1]": (lambda x: x[0] * x[1], -0.5)},
)
SHORT: Any = {"num_warmup": 50, "num_samples": 100, "progress": False}


@pytest.mark.parametrize(
    ("kernel", "target"),
    [
        (Cycle(["mala", Repeat("hmc", 2)]), NORMAL),
        (RandomKernel(["mala", "hmc"], weights=[3.0, 1.0]), NORMAL),
        pytest.param(RandomKernel(["gibbs", "discrete_langevin"]), KINDS, marks=pytest.mark.slow),
        pytest.param(
            BlockGibbs({"b": ("gibbs_with_gradients", 3), ("s", "k"): "discrete_langevin"}),
            KINDS,
            marks=pytest.mark.slow,
        ),
        pytest.param(
            BlockGibbs({"x": "mala", "tau": ("mala", 2), "z": "gibbs"}),
            mixed(),
            marks=pytest.mark.slow,
        ),
    ],
    ids=["cycle", "random", "random, discrete", "blocks, discrete", "blocks, mixed"],
)
def test_exact(kernel: en.samplers.Kernel, target: Target) -> None:
    check_sampler(kernel, targets=[target])


@en.energy(x=en.Real((2,)), tau=en.Positive(), z=en.Categorical(3))
def labelled(x, tau, z):
    return 0.5 * tau * jnp.sum((x - z) ** 2) + tau - jnp.log(tau)


def test_blocks_by_default(key: jax.Array) -> None:
    draws = en.sample(labelled, "block_gibbs", key=key, num_samples=500, progress=False)
    tuned = draws.tuned_sampler
    assert [names for names, _ in tuned.blocks] == [("z",), ("x", "tau")]
    assert [type(kernel).__name__ for _, kernel in tuned.blocks] == ["Gibbs", "NUTS"]
    told = {"acceptance_rate", "acceptance_rate_x_tau", "diverging", "n_steps_x_tau", "lp"}
    assert told <= set(draws.stats)
    np.testing.assert_array_equal(
        draws.stats["acceptance_rate"], draws.stats["acceptance_rate_x_tau"]
    )
    assert draws.diagnose(show=False).bfmi is None
    lp = -jax.vmap(jax.vmap(labelled.at))({name: draws[name] for name in draws})
    np.testing.assert_allclose(draws.stats["lp"], lp, rtol=1e-4, atol=1e-4)


def test_each_block_is_tuned_on_its_own(key: jax.Array) -> None:
    narrow = en.Gaussian([0.0, 0.0], scale=0.01)
    pair = narrow + en.Gaussian(0.0, scale=10.0).rename(x="y")
    kernel = BlockGibbs({"x": "nuts", "y": "mala"})
    draws = en.sample(pair, kernel, key=key, num_samples=500, progress=False)
    blocks = dict(draws.tuned_sampler.blocks)
    assert np.all(np.asarray(blocks[("x",)].inverse_mass_matrix) < 1e-3)
    assert np.all(np.asarray(blocks[("y",)].step_size) > 10)
    assert 0.4 < float(jnp.mean(draws.stats["acceptance_rate_y"])) < 0.75
    means = draws.stats["acceptance_rate_x"] + draws.stats["acceptance_rate_y"]
    np.testing.assert_allclose(draws.stats["acceptance_rate"], means / 2, rtol=1e-5)


def test_what_a_random_kernel_tells(key: jax.Array) -> None:
    kernel = RandomKernel([NUTS(), MALA()], weights=[1.0, 4.0])
    draws = en.sample(NORMAL.energy, kernel, key=key, num_samples=1000, progress=False)
    chosen = np.asarray(draws.stats["kernel"])
    assert np.mean(chosen) == pytest.approx(0.8, abs=0.04)
    assert set(draws.stats) == {
        "acceptance_rate",
        "diverging",
        "kernel",
        "lp",
        "reached_max_treedepth",
        "step_size",
    }
    steps = np.asarray(draws.stats["step_size"])
    assert not set(steps[0, chosen[0] == 0]) & set(steps[0, chosen[0] == 1])


def test_repeat_is_as_many_steps(key: jax.Array) -> None:
    """What is told of a repeated kernel; its draws are those of the kernel, keys apart."""
    kernel = NUTS(step_size=0.5, inverse_mass_matrix=np.ones(2))
    energy, start = NORMAL.energy, {"x": jnp.zeros(2)}
    repeated = Repeat(kernel, 3)
    state, info = repeated.step(energy, repeated.init(energy, start, key), key)
    alone, seen = kernel.init(energy, start, key), []
    for t in range(3):
        alone, one = kernel.step(energy, alone, jax.random.fold_in(key, t))
        seen.append(one)
    np.testing.assert_allclose(state.position["x"], alone.position["x"], rtol=1e-5)
    rates = [float(one["acceptance_rate"]) for one in seen]
    assert float(info["acceptance_rate"]) == pytest.approx(np.mean(rates), rel=1e-5)
    assert int(info["n_steps"]) == sum(int(one["n_steps"]) for one in seen)
    assert int(info["tree_depth"]) == int(seen[-1]["tree_depth"])


def test_kinds_of_a_combination() -> None:
    samplers = en.samplers
    blocks = BlockGibbs({"x": "nuts", "z": "gibbs"})
    for marker in (samplers.GradientBased, samplers.VariableLength, samplers.DiscreteSpace):
        assert blocks.has(marker)
        assert BlockGibbs().has(marker)
        assert Repeat(blocks, 2).has(marker)
    assert not blocks.has(samplers.Biased)
    biased = Cycle(["mala", "langevin"])
    assert biased.has(samplers.Biased)
    assert not biased.has(samplers.DiscreteSpace)
    assert biased.bias() == "Langevin: no Metropolis step: biased by order step_size"
    assert Repeat("langevin", 2).bias() == en.samplers.Langevin().bias()
    assert Cycle(["mala"]).bias() is None
    assert Cycle(["mala", "nuts"]).unset() == ("step_size", "inverse_mass_matrix")


def test_another_number_of_steps_compiles_nothing(key: jax.Array, compilations: Any) -> None:
    energy = NORMAL.energy
    en.sample(energy, Repeat(MALA(step_size=0.5), 2), key=key, **SHORT)
    with compilations() as seen:
        en.sample(energy, Repeat(MALA(step_size=0.4), 5), key=key, **SHORT)
    assert seen.count == 0, seen.compiled


def test_blocks_are_saved(key: jax.Array, tmp_path: Path) -> None:
    kernel = BlockGibbs({("x", "tau"): MALA(step_size=0.1), "z": "gibbs"})
    draws = en.sample(labelled, kernel, key=key, **SHORT)
    draws.save(tmp_path / "draws.npz")
    loaded = en.Draws.load(tmp_path / "draws.npz", energy=labelled)
    for name in draws:
        np.testing.assert_array_equal(loaded.extend(20)[name], draws.extend(20)[name])


@pytest.mark.parametrize(
    ("error", "make", "message"),
    [
        (ValueError, lambda: BlockGibbs({}), "needs a block at least"),
        (ValueError, lambda: BlockGibbs({("x", "x"): "nuts"}), r"different ones, got \('x', 'x'\)"),
        (ValueError, lambda: BlockGibbs({"x": ("nuts", 2, 3)}), r"takes \(kernel, repeats\), got"),
        (ValueError, lambda: BlockGibbs({"x": "nut"}), "did you mean 'nuts'"),
        (TypeError, lambda: BlockGibbs({"x": NUTS}), r"write NUTS\(...\)"),
        (
            ValueError,
            lambda: BlockGibbs({"x": ("nuts", 0)}),
            "num_steps= must be at least 1",
        ),
        (ValueError, lambda: Cycle([]), "Cycle needs a kernel at least"),
        (TypeError, lambda: inspect.unwrap(Cycle)("nuts"), "takes a list of kernels, got 'nuts'"),
        (ValueError, lambda: RandomKernel(["nuts"], weights=[1.0, 2.0]), r"shape \(1,\), got \(2,"),
        (ValueError, lambda: RandomKernel(["nuts"], weights=[0.0]), "weights= must be positive"),
    ],
)
def test_bad_input(error: type[Exception], make: Any, message: str) -> None:
    with pytest.raises(error, match=message):
        make()


def test_untuned(key: jax.Array) -> None:
    messages = {
        BlockGibbs: r"BlockGibbs is not tuned: give BlockGibbs\(blocks=...\)",
        lambda: Cycle(["nuts", "mala"]): r"Cycle is not tuned: give NUTS\(step_size=..., inv.* and "
        r"MALA\(step_size=...\), or draw with en.sample",
    }
    for make, message in messages.items():
        with pytest.raises(ValueError, match=message):
            en.sample(NORMAL.energy, make(), key=key, num_warmup=0)
    with pytest.raises(ValueError, match="none of the default targets: give targets="):
        check_sampler(BlockGibbs({"x": "nuts", "w": "gibbs"}))


def test_lengths_go_on_varying_inside_a_combination(key: jax.Array) -> None:
    """One length of 4 pi for all trajectories would bring a standard normal back to its start."""
    chees = en.samplers.ChEESHMC(
        step_size=0.1, trajectory_length=4 * np.pi, inverse_mass_matrix=jnp.ones(4)
    )
    energy = en.Gaussian(jnp.zeros(4))
    for sampler in (
        Cycle([chees]),
        BlockGibbs({"x": chees}),
        BlockGibbs({"x": (chees, 1)}),
        Cycle([Cycle([chees])]),
        RandomKernel([chees, "mala"]),
    ):
        draws = en.sample(energy, sampler, key=key, num_warmup=100, num_samples=500)
        assert draws.diagnose(show=False).max_rhat < 1.05


@pytest.mark.parametrize(
    "sampler",
    [
        BlockGibbs({"x": ("mala", 2)}),
        Cycle(["mala", Repeat("hmc", 2)]),
        RandomKernel(["mala", "barker"], weights=[0.3, 0.7]),
    ],
    ids=["repeats", "cycle", "random"],
)
def test_saved_and_loaded_by_the_energy_alone(sampler: Any, tmp_path: Any, key: jax.Array) -> None:
    energy = en.Gaussian(jnp.zeros(2))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", en.ConvergenceWarning)
        draws = en.sample(energy, sampler, key=key, num_warmup=50, num_samples=20)
        draws.save(tmp_path / "draws.npz")
        again = en.Draws.load(tmp_path / "draws.npz", energy=energy).extend(10)
        np.testing.assert_array_equal(again["x"], draws.extend(10)["x"])


def test_a_random_kernel_is_tuned_inside_a_combination(key: jax.Array) -> None:
    """By what each kernel last saw, not by nothing at the steps of the others."""
    inside = BlockGibbs({"x": RandomKernel(["mala", "barker"])})
    draws = en.sample(NORMAL.energy, inside, key=key, num_warmup=300, num_samples=300)
    ((_, chosen),) = draws.tuned_sampler.blocks
    for kernel in chosen.kernels:
        assert np.all(np.asarray(kernel.step_size) > 0.1), kernel
    assert 0.3 < float(jnp.mean(draws.stats["acceptance_rate"])) < 0.8


def test_what_persistent_chains_keep() -> None:
    momentum = en.samplers.UnadjustedHMC(persistence=0.9)
    assert Repeat(momentum, 2).keeps()
    assert Cycle(["mala", Cycle([momentum])]).keeps()
    assert not Repeat("mala", 2).keeps()
    assert not BlockGibbs({"x": "nuts", "z": ("gibbs", 2)}).keeps()
