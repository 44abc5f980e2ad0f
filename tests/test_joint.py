"""Joint-distribution tests: Geweke's, and simulation-based calibration, for every exact kernel.

Both compare what a sampler does over many data sets with what the prior says, so that nothing but
the model has to be known. A run of `en.sample` on one data set supplies tuned numbers; the kernels
are then driven by hand on thousands of data sets at once.
"""

import functools
import warnings
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import energia as en
from energia.energies._unconstrained import Unconstrained
from energia.samplers import AlongPath, Biased, DiscreteSpace, Kernel

CHAINS = 4096
ROUNDS = 6
STEPS = 3
MAX_Z = 5.0

Values = dict[str, Any]


class Model(NamedTuple):
    """A joint energy of parameters and data y, and exact draws of both."""

    energy: en.Energy
    prior: Callable[[jax.Array], Values]
    data: Callable[[jax.Array, Values], jax.Array]
    functions: Callable[[Values, jax.Array], dict[str, jax.Array]]


SCALES = np.array([1.0, 0.5, 2.0])


@en.energy(theta=en.Real((2,)), tau=en.Positive(), y=en.Real((3,)))
def normals(theta, tau, y):
    """theta ~ N(0, 1), tau ~ Gamma(4, 2), y_i ~ N(theta_1 + theta_2 x_i, s_i² / tau)."""
    prior = 0.5 * jnp.sum(theta**2) + 2 * tau - 3 * jnp.log(tau)
    mean = theta[0] + theta[1] * jnp.array([-1.0, 0.0, 1.0])
    likelihood = 0.5 * tau * jnp.sum(((y - mean) / SCALES) ** 2) - 1.5 * jnp.log(tau)
    return prior + likelihood


def normals_prior(key: jax.Array) -> Values:
    one, two = jax.random.split(key)
    return {"theta": jax.random.normal(one, (2,)), "tau": jax.random.gamma(two, 4.0) / 2}


def normals_data(key: jax.Array, values: Values) -> jax.Array:
    mean = values["theta"][0] + values["theta"][1] * jnp.array([-1.0, 0.0, 1.0])
    return mean + SCALES * jax.random.normal(key, (3,)) / jnp.sqrt(values["tau"])


def normals_functions(values: Values, y: jax.Array) -> dict[str, jax.Array]:
    theta, tau = values["theta"], values["tau"]
    return {
        "theta": theta[0],
        "theta²": theta[1] ** 2,
        "theta theta": theta[0] * theta[1],
        "log tau": jnp.log(tau),
        "tau": tau,
        "tau²": tau**2,
        "y": y[0],
        "theta y": theta[1] * y[2],
        "tau y²": tau * y[1] ** 2,
        "likelihood": normals(theta=theta, tau=tau, y=y),  # sees a sampler that ignores data
    }


CENTRES = np.array([-1.0, 0.0, 2.0])


@en.energy(k=en.Categorical(3, (2,)), s=en.Spin((2,)), b=en.Binary(), y=en.Real((2,)))
def labels(k, s, b, y):
    """A chain of coupled labels, with a normal datum for each."""
    coupling = -0.4 * s[0] * s[1] - 0.5 * b * (s[0] + 1)
    likelihood = 0.5 * jnp.sum((y - jnp.asarray(CENTRES)[k] - 0.5 * s - b) ** 2)
    return coupling + likelihood


def labels_prior(key: jax.Array) -> Values:
    one, two = jax.random.split(key)
    s, b = np.meshgrid(np.arange(4), np.arange(2), indexing="ij")
    spins = np.stack([2 * (s // 2) - 1, 2 * (s % 2) - 1])
    log_weights = 0.4 * spins[0] * spins[1] + 0.5 * b * (spins[0] + 1)
    index = jax.random.categorical(one, jnp.asarray(log_weights.ravel(), float))
    return {
        "k": jax.random.randint(two, (2,), 0, 3),
        "s": jnp.asarray(spins.reshape(2, -1), float)[:, index],
        "b": jnp.asarray(b.ravel(), float)[index],
    }


def labels_data(key: jax.Array, values: Values) -> jax.Array:
    mean = jnp.asarray(CENTRES)[values["k"]] + 0.5 * values["s"] + values["b"]
    return mean + jax.random.normal(key, (2,))


def labels_functions(values: Values, y: jax.Array) -> dict[str, jax.Array]:
    k, s, b = values["k"], values["s"], values["b"]
    return {
        "k=0": k[0] == 0,
        "k=2": k[1] == 2,
        "k=k": k[0] == k[1],
        "s": s[0],
        "ss": s[0] * s[1],
        "b": b,
        "bs": b * s[0],
        "y²": y[0] ** 2,
        "y s": y[0] * s[0],
        "likelihood": labels(k=k, s=s, b=b, y=y),
    }


NORMALS = Model(normals, normals_prior, normals_data, normals_functions)
LABELS = Model(labels, labels_prior, labels_data, labels_functions)

KINDS = {name: en.samplers.registry.get(name) for name in en.samplers.names()}
EXACT = [
    n
    for n, kind in KINDS.items()
    if issubclass(kind, Kernel)
    and not issubclass(kind, Biased)
    and not issubclass(kind, AlongPath)  # replicas begin away from equilibrium
]


@functools.cache
def tuned(name: str) -> tuple[Kernel, Model]:
    """The kernel with the numbers that a short run on one data set gives it."""
    kernel = en.samplers.registry.get(name)()
    assert isinstance(kernel, Kernel)
    model = LABELS if isinstance(kernel, DiscreteSpace) else NORMALS
    key = jax.random.key(1)
    y = model.data(key, model.prior(jax.random.key(2)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", en.ConvergenceWarning)
        draws = en.sample(
            model.energy.condition(y=y), kernel, key=key, num_chains=64, num_warmup=200,
            num_samples=10, progress=False, chain_method=method(kernel),
        )  # fmt: skip
    first = eqx.filter(draws.tuned_sampler, eqx.is_array)
    if not isinstance(kernel, en.samplers.AllChains):
        first = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), first)
    rest = eqx.filter(draws.tuned_sampler, eqx.is_array, inverse=True)
    return eqx.combine(first, rest), model


def method(kernel: Kernel) -> str:
    return "auto" if isinstance(kernel, en.samplers.AllChains) else "vectorized"


def steps(kernel: Kernel, target: en.Energy, position: Values, key: jax.Array) -> Values:
    """The position `STEPS` steps on."""
    state = kernel.init(target, position, jax.random.fold_in(key, STEPS))

    def step(t: jax.Array, state: Any) -> Any:
        return kernel.step(target, state, jax.random.fold_in(key, t))[0]

    return jax.lax.fori_loop(0, STEPS, step, state).position


@eqx.filter_jit
def successive(kernel: Kernel, model: Model, keys: jax.Array) -> dict[str, jax.Array]:
    """Functions of parameters and data that have been drawn in turn, one draw for each key.

    Parameters and data begin as exact draws, so that they are exact draws at the end as well,
    whatever the number of rounds: chains are independent and nothing has to converge.
    """

    def chain(key: jax.Array) -> dict[str, jax.Array]:
        values = model.prior(jax.random.fold_in(key, 0))

        def both(values: Values, round: jax.Array) -> tuple[Values, jax.Array]:
            own = jax.random.fold_in(key, round + 1)
            y = model.data(jax.random.fold_in(own, 0), values)
            target = Unconstrained(model.energy.condition(y=y))
            position = steps(kernel, target, target.unconstrain(values), jax.random.fold_in(own, 1))
            return target.constrain(position)[0], y

        values, y = jax.lax.scan(both, values, jnp.arange(ROUNDS))
        return model.functions(values, y[-1])

    return jax.vmap(chain)(keys)


def z_scores(kernel: Kernel, model: Model, key: jax.Array) -> dict[str, float]:
    """How far the two simulators of the joint law disagree, in standard errors."""
    one, two = jax.random.split(key)
    after = successive(kernel, model, jax.random.split(one, CHAINS))

    @jax.vmap
    def direct(key: jax.Array) -> dict[str, jax.Array]:
        values = model.prior(jax.random.fold_in(key, 0))
        return model.functions(values, model.data(jax.random.fold_in(key, 1), values))

    before = jax.jit(direct)(jax.random.split(two, 16 * CHAINS))
    scores = {}
    for name in before:
        a, b = np.asarray(after[name], float), np.asarray(before[name], float)
        error = np.sqrt(a.var() / len(a) + b.var() / len(b))
        scores[name] = float((a.mean() - b.mean()) / error)
    return scores


@pytest.mark.slow
@pytest.mark.parametrize("name", EXACT)
def test_geweke(name: str, key: jax.Array) -> None:
    scores = z_scores(*tuned(name), key)
    wrong = {name: z for name, z in scores.items() if not abs(z) < MAX_Z}
    assert not wrong, scores


class Tempered(Kernel):
    """HMC on another temperature: what the test must reject."""

    inner: Kernel

    def init(self, energy, position, key):
        return self.inner.init(0.8 * energy, position, key)

    def step(self, energy, state, key):
        return self.inner.step(0.8 * energy, state, key)


class Forgetful(Kernel):
    """HMC of the prior: it does not see the data. Moments of the parameters alone are right."""

    inner: Kernel

    def init(self, energy, position, key):
        return self.inner.init(self.prior(), position, key)

    def step(self, energy, state, key):
        return self.inner.step(self.prior(), state, key)

    def prior(self):
        @en.energy(theta=en.Real((2,)), tau=en.Positive())
        def prior(theta, tau):
            return 0.5 * jnp.sum(theta**2) + 2 * tau - 3 * jnp.log(tau)

        return Unconstrained(prior)


@pytest.mark.slow
@pytest.mark.parametrize("flaw", [Tempered, Forgetful])
def test_geweke_rejects(flaw: Any, key: jax.Array) -> None:
    kernel, model = tuned("hmc")
    scores = z_scores(flaw(kernel), model, key)
    assert max(abs(z) for z in scores.values()) > 2 * MAX_Z, scores


# --- simulation-based calibration

RANKS = 63
APART = 4
REPLICATIONS = 4000


@eqx.filter_jit
def ranks(kernel: Kernel, model: Model, keys: jax.Array) -> dict[str, jax.Array]:
    """The rank of what the prior drew among `RANKS` draws of the posterior given its data.

    What the prior drew is a draw of the posterior. Two chains run from it, with a random share of
    the draws: for a reversible kernel it then stands at a random place of one stationary chain.
    """

    def one(key: jax.Array) -> dict[str, jax.Array]:
        truth = model.prior(jax.random.fold_in(key, 0))
        y = model.data(jax.random.fold_in(key, 1), truth)
        target = Unconstrained(model.energy.condition(y=y))
        start = target.unconstrain(truth)
        before = jax.random.randint(jax.random.fold_in(key, 2), (), 0, RANKS + 1)

        def functions(position: Values) -> dict[str, jax.Array]:
            return model.functions(target.constrain(position)[0], y)

        def draw(position: Values, t: jax.Array) -> tuple[Values, dict[str, jax.Array]]:
            # the second arm begins at the truth again
            position = jax.tree.map(lambda a, b: jnp.where(t == before, a, b), start, position)
            own = jax.random.fold_in(jax.random.fold_in(key, 3), t)
            for part in range(APART):
                position = steps(kernel, target, position, jax.random.fold_in(own, part))
            return position, functions(position)

        drawn = jax.lax.scan(draw, start, jnp.arange(RANKS))[1]
        noise = jax.random.uniform(jax.random.fold_in(key, 4), (RANKS + 1,))
        true = functions(start)
        return {
            name: jnp.sum((rows < true[name]) | ((rows == true[name]) & (noise[1:] < noise[0])))
            for name, rows in drawn.items()
        }

    return jax.vmap(one)(keys)


def uniformity(kernel: Kernel, model: Model, key: jax.Array) -> dict[str, float]:
    """χ² of the ranks over eight bins, as a z-score, for what the posterior makes move."""
    seen = ranks(kernel, model, jax.random.split(key, REPLICATIONS))
    scores = {}
    for name, values in seen.items():
        counts = np.bincount(np.asarray(values) * 8 // (RANKS + 1), minlength=8)
        expected = REPLICATIONS / 8
        chi = float(np.sum((counts - expected) ** 2) / expected)
        scores[name] = (chi - 7) / np.sqrt(14)
    return scores


@pytest.mark.slow
@pytest.mark.parametrize("name", ["nuts", "mala"])
def test_calibration(name: str, key: jax.Array) -> None:
    kernel, model = tuned(name)
    scores = uniformity(kernel, model, key)
    assert max(scores.values()) < 6, scores


@pytest.mark.slow
@pytest.mark.parametrize("flaw", [Tempered, Forgetful])
def test_calibration_rejects(flaw: Any, key: jax.Array) -> None:
    kernel, model = tuned("hmc")
    scores = uniformity(flaw(kernel), model, key)
    assert max(scores.values()) > 12, scores
