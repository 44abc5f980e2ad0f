"""Every registered sampler keeps the protocol and samples its density; broken ones are rejected."""

import inspect
from typing import Any, ClassVar, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import energia as en
from energia.energies._unconstrained import Unconstrained
from energia.testing import Target, check_sampler
from energia.testing._targets import enumerate_target

MEAN, PRECISION, STEP = np.array([1.0, -1.0]), np.array([1.0, 4.0]), 0.2


def normal(variance: Any = 1 / PRECISION) -> Target:
    """A diagonal Gaussian, and what its variance should come out as."""
    return Target(
        "a Gaussian",
        en.Gaussian(MEAN, scale=PRECISION**-0.5),
        mean={"x": MEAN},
        variance={"x": variance},
    )


DISCRETISED = normal(1 / (PRECISION * (1 - STEP * PRECISION / 2)))
"""The law of unadjusted Langevin: the variance of its autoregression."""

# A name without a line is checked as it stands, against the default targets; a biased kernel needs
# the law that it does follow.
CONFIGS: dict[str, Any] = {
    "langevin": en.samplers.Langevin(step_size=STEP),
    "mclmc": en.samplers.MCLMC(L=1.5, step_size=0.3, inverse_mass_matrix=1 / PRECISION),
    "parallel_tempering": en.samplers.ParallelTempering("hmc", num_replicas=3),
}
TARGETS: dict[str, list[Target]] = {"langevin": [DISCRETISED], "mclmc": [normal()]}


KERNELS = [
    n for n in en.samplers.names() if issubclass(en.samplers.registry.get(n), en.samplers.Kernel)
]


# One harness serves all. The others have quick tests of their own, in the files of their families.
QUICK = {"gibbs", "langevin", "mala"}


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=[] if n in QUICK else [pytest.mark.slow]) for n in KERNELS]
)
def test_registered(name: str) -> None:
    check_sampler(CONFIGS.get(name, name), targets=TARGETS.get(name))


# --- from outside the library


GENERATOR = np.random.default_rng(0)


class State(NamedTuple):
    position: dict[str, jax.Array]
    energy: jax.Array


class Metropolis(en.samplers.Kernel):
    """Random-walk Metropolis, sound or with a flaw."""

    scale: jax.Array
    flaw: str = eqx.field(static=True, default="")

    def init(self, energy, position, key):
        if self.flaw != "starts untuned":
            self.check_set()
        if self.flaw == "moves at init":
            position = jax.tree.map(lambda x: x + 1, position)
        return State(position, energy.at(position))

    def step(self, energy, state, key):
        if self.flaw == "ignores its key":
            key = jax.random.key(0)
        key_move, key_accept = jax.random.split(key)
        if self.flaw == "impure":
            key_move = jax.random.fold_in(key_move, GENERATOR.integers(2**31))
        moved = {}
        for name, x in state.position.items():
            key_move, subkey = jax.random.split(key_move)
            moved[name] = self.propose(energy, state, name, x, subkey)
        proposed = State(moved, energy.at(moved))
        rate = jnp.exp(jnp.minimum(0.0, state.energy - proposed.energy))
        accepted = jax.random.uniform(key_accept) < rate
        if self.flaw == "accepts all":
            accepted = jnp.full_like(accepted, True)
        if self.flaw == "accepts none":
            accepted = jnp.full_like(accepted, False)
        new = jax.tree.map(lambda a, b: jnp.where(accepted, a, b), proposed, state)
        info = {"acceptance_rate": rate, "lp": -new.energy}
        match self.flaw:
            case "NaN":
                new = jax.tree.map(lambda x: x * jnp.nan, new)
            case "half precision":
                new = jax.tree.map(lambda x: x.astype(jnp.bfloat16), new)
            case "nested info":
                info["more"] = {}
            case "info of matrices":
                info["noise"] = jnp.zeros((2, 2))
            case "lp of the proposal":
                info["lp"] = -proposed.energy - 1
            case "a rate above one":
                info["acceptance_rate"] = 2 + 0 * rate
        return new, info

    def propose(self, energy, state, name, x, key):
        move = self.scale * jax.random.normal(key, x.shape, x.dtype)
        if self.flaw != "no Hastings correction":
            return x + move
        # the proposal of MALA, accepted as if it were symmetric
        return x - 0.5 * self.scale**2 * jax.grad(energy.at)(state.position)[name] + move


class Shared(Metropolis, en.samplers.AllChains):
    """Its scale is tuned on all chains together."""

    tunable: ClassVar[tuple[str, ...]] = ("scale",)

    def tune_init(self, energy, positions, num_warmup):
        return self.replace(scale=jnp.ones(())), {"log_scale": jnp.zeros(())}

    def tune(self, tuning, states, info, step):
        error = jnp.mean(info["acceptance_rate"]) - 0.3
        log_scale = tuning["log_scale"] + error / jnp.sqrt(step + 1.0)
        return self.replace(scale=jnp.exp(log_scale)), {"log_scale": log_scale}


class Flip(Metropolis, en.samplers.DiscreteSpace):
    """Metropolis that proposes to flip one spin."""

    def propose(self, energy, state, name, x, key):
        chosen = jax.random.randint(key, (), 0, x.size)
        return jnp.where(jnp.arange(x.size) == chosen, -x, x)


SCALE = jnp.ones(())
SPINS = enumerate_target(
    "three spins",
    en.Ising(3, coupling=[0.7, -0.5], field=[0.3, -0.2, 0.1], edges=[[0, 1], [1, 2]]),
    {"E x[0] x[1]": lambda x: x[0] * x[1]},
)


@pytest.mark.parametrize(
    "kernel",
    [Metropolis(SCALE), Shared(None), Flip(SCALE)],  # pyright: ignore[reportArgumentType]
    ids=["random walk", "tuned on all chains", "spins"],
)
def test_kernel_from_outside(kernel: en.samplers.Kernel) -> None:
    targets = {Metropolis: [normal()], Flip: [SPINS]}.get(type(kernel))
    check_sampler(kernel, targets=targets)


def test_dense_metric() -> None:
    covariance = np.array([[1.0, 0.9], [0.9, 1.0]])
    kernel = en.samplers.HMC(
        step_size=0.5, inverse_mass_matrix=covariance, num_integration_steps=4, step_size_jitter=0.0
    )
    target = Target(
        "a Gaussian",
        en.Gaussian(MEAN, covariance=covariance),
        mean={"x": MEAN},
        variance={"x": np.ones(2)},
        expectations={"E x[0] x[1]": (lambda x: x[0] * x[1], -0.1)},
    )
    check_sampler(kernel, targets=[target])


# --- negative controls: what the checks must reject


@pytest.mark.parametrize(
    ("flaw", "message"),
    [
        ("moves at init", "starts at the position that it is given: .*'x'"),
        ("impure", "same key gives the same transition: .* pure functions"),
        ("NaN", r"position of \['x'\] is not finite after one step"),
        ("half precision", r"keeps in structure: .*float32\[2\] against bfloat16\[2\]"),
        ("nested info", "info is a flat dict of arrays, numbers or vectors: 'more' is {}"),
        ("info of matrices", r"'noise' has shape \(2, 2\)"),
        ("lp of the proposal", "lp is minus the energy at the new position: "),
        ("a rate above one", "acceptance_rate is 2"),
    ],
)
def test_flaw_in_protocol(flaw: str, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_sampler(Metropolis(SCALE, flaw), targets=[normal()])


@pytest.mark.parametrize(
    ("flaw", "message"),
    [
        ("accepts all", "too few to tell|z = "),
        ("ignores its key", "another key gives other draws .* both keys give the same draws"),
        ("accepts none", "another key gives other draws .* both keys give the same draws"),
        ("no Hastings correction", r"Var x\[\d\] is .* exactly .* \(z = [-+]\d"),
    ],
)
def test_flaw_in_draws(flaw: str, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_sampler(Metropolis(SCALE, flaw), targets=[normal()])


def test_too_few_effective_draws() -> None:
    with pytest.raises(AssertionError, match=r"have an ESS of .*: too few to tell"):
        check_sampler(Metropolis(SCALE / 500), targets=[normal()])


def test_five_percent_too_little_noise() -> None:
    noise = 0.95 * np.sqrt(2 * STEP)
    kernel = en.samplers.Langevin(step_size=STEP, noise_scale=noise)
    with pytest.raises(AssertionError, match=r"Var x\[0\] is .* exactly 1\.1111"):
        check_sampler(kernel, targets=[DISCRETISED])
    # the same chain against its own law, an autoregression
    decay = 1 - STEP * PRECISION
    check_sampler(kernel, targets=[normal(noise**2 / (1 - decay**2))])


def test_forgotten_jacobian(monkeypatch: pytest.MonkeyPatch) -> None:
    def exponential() -> Target:  # each time another function, which is compiled by itself
        energy = en.energy(x=en.Positive())(lambda x: x)
        return Target("an exponential", energy, mean={"x": 1.0}, variance={"x": 1.0})

    def constrain(self, values):
        return {n: dict(self.maps)[n].constrain(v)[0] for n, v in values.items()}, jnp.zeros(())

    check_sampler(Metropolis(SCALE), targets=[exponential()])
    monkeypatch.setattr(Unconstrained, "constrain", constrain)
    with pytest.raises(AssertionError, match="E x is"):
        check_sampler(Metropolis(SCALE), targets=[exponential()])


class Untuned(Metropolis):
    """Metropolis whose scale may be None."""

    tunable: ClassVar[tuple[str, ...]] = ("scale",)

    def tune_init(self, energy, positions, num_warmup):
        if self.flaw == "fills nothing":
            return self, None
        number = 1.0 if self.flaw == "fills a Python float" else jnp.ones(())
        return self.replace(scale=number), jnp.zeros(())

    def tune(self, tuning, states, info, step):
        wrong = self.flaw == "tunes to another shape"
        return self.replace(scale=jnp.ones(2 if wrong else ())), tuning


@pytest.mark.parametrize(
    ("flaw", "message"),
    [
        ("starts untuned", "init.. raises a ValueError that names its unset numbers"),
        ("fills nothing", r"tune_init.. fills .*\('scale',\) are unset"),
        ("fills a Python float", r"\[1\.0\] are no arrays"),
        ("tunes to another shape", r"keeps the structure .*float32\[\] against float32\[2\]"),
    ],
)
def test_flaw_in_tuning(flaw: str, message: str) -> None:
    with pytest.raises(AssertionError, match=message):
        check_sampler(Untuned(None, flaw), targets=[normal()])  # pyright: ignore


def test_flaws_in_numbers() -> None:
    with pytest.raises(AssertionError, match=r"numbers are array leaves: \[1\.0\] are no arrays"):
        check_sampler(Metropolis(1.0), targets=[normal()])  # pyright: ignore

    class Reads(Metropolis):
        def propose(self, energy, state, name, x, key):
            return x + float(self.scale)

    with pytest.raises(AssertionError, match="compile, with the energy as an argument: it raises"):
        check_sampler(Reads(SCALE), targets=[normal()])


def test_what_is_checked() -> None:
    with pytest.raises(TypeError, match="write NUTS"):
        inspect.unwrap(check_sampler)(en.samplers.NUTS)  # below the type checker
    with pytest.raises(ValueError, match="did you mean 'nuts'"):
        check_sampler("nut")


# --- the parts


def test_langevin_step() -> None:
    kernel = en.samplers.Langevin(step_size=0.1, noise_scale=0.0, clip=2.0)
    energy = en.Gaussian(jnp.zeros(2), scale=0.5)  # its gradient is 4 x
    state = kernel.init(energy, {"x": jnp.array([0.25, -3.0])}, jax.random.key(0))
    state, info = kernel.step(energy, state, jax.random.key(1))
    np.testing.assert_allclose(state.position["x"], [0.15, -2.8], rtol=1e-6)
    assert info == {}
    assert "do not sample" in str(kernel.bias())
    assert "order step_size" in str(en.samplers.Langevin().bias())
    assert en.samplers.NUTS().bias() is None


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: en.samplers.Langevin(step_size=0.0), "step_size=...\\) must be positive"),
        (lambda: en.samplers.Langevin(step_size=np.nan), "must be positive and finite, got nan"),
        (lambda: en.samplers.Langevin(noise_scale=-1.0), "noise_scale=...\\) must be at least 0"),
        (lambda: en.samplers.Langevin(clip=0.0), "clip=...\\) must be positive"),
        (lambda: en.samplers.MALA(step_size=-0.1), "MALA\\(step_size=...\\) must be positive"),
        (lambda: en.samplers.NUTS(target_acceptance_rate=1.0), "must lie in \\(0, 1\\), got 1"),
        (lambda: en.samplers.NUTS(max_num_doublings=0), "max_num_doublings= must be at least 1"),
        (lambda: en.samplers.HMC(num_integration_steps=0), "num_integration_steps= must be at"),
        (lambda: en.samplers.HMC(step_size_jitter=1.0), "must lie in \\[0, 1\\), got 1"),
        (lambda: en.samplers.HMC(inverse_mass_matrix=[1.0, 0.0]), "inverse_mass_matrix=...\\) mus"),
        (
            lambda: en.samplers.NUTS(inverse_mass_matrix=np.triu(np.ones((3, 3)))),
            "must be symmetric",
        ),
        (lambda: en.samplers.HMC(inverse_mass_matrix=-np.eye(2)), "must be positive definite"),
        (lambda: en.samplers.NUTS(inverse_mass_matrix=np.ones((2, 3))), "must be a square matrix"),
        (lambda: en.samplers.NUTS(metric="full"), "metric=...\\) must be one of .*, got 'full'"),
    ],
)
def test_bad_numbers(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
