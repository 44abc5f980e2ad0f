"""Noise-contrastive estimation: the model as the density that tells data from noise."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from energia._types import Values, check_count, is_concrete, optional_float
from energia.energies._energy import Energy
from energia.energies._fitted import Fitted
from energia.energies._unconstrained import Unconstrained
from energia.objectives._objective import (
    Objective,
    Shapes,
    check_continuous,
    conditioned,
    mean_over_rows,
    registry,
    rows_in,
)
from energia.supports import Discrete, Real

DATA_WEIGHT = 1e6  # of a row against draws of the unit law, whose scale may be far from the data's
FIRST_DRAWS = 1024  # noise that the first estimate of log Z is made of


class _Contrast(NamedTuple):
    """Data and noise for one row: log of model over noise density, up to log Z, and where."""

    log_ratio: Callable[[Any], jax.Array]
    datum: Any
    draw: Callable[[jax.Array], Any]


@registry.register("nce")
class NCE(Objective):
    r"""Noise-contrastive estimation.

    Logistic regression between data and $\nu$ times as much noise of a known density $p_n$, with
    the model's log odds $G(x) = -E(x) - c - \log p_n(x) - \log \nu$. The loss

    $\mathbb{E}_{\text{data}} \log(1 + e^{-G(x)}) + \nu\, \mathbb{E}_{p_n} \log(1 + e^{G(y)})$

    is least where $e^{-E - c}$ is the density of the data, so that $c$, which is learned beside the
    energy, becomes $\log Z$: `fit.learned['log_partition']`. It starts at an estimate by importance
    sampling from the noise. The larger $\nu$, and the nearer the noise to the data, the closer is
    the error of what is learned to that of maximum likelihood.

    Args:
        noise: an energy of the modelled variables (and of given ones, if it likes) with exact draws
            and a known normaliser, such as `Gaussian`, `GaussianMixture`, or a sum of them over
            different variables; never trained. None: a law that is fitted to the data, normal for
            real variables (bounded ones in unconstrained coordinates), with correlations up to 32
            entries, and independent for the entries of discrete ones.
        ratio: $\nu$, noise draws for each row, at least 1.
        given: variables that are conditioned on. $c$ then has an entry for each of their states, so
            that their support must be finite; others are for `'cnce'`.

    References:
        Gutmann and Hyvärinen (2012), Noise-contrastive estimation of unnormalized statistical
        models, with applications to natural image statistics.

    Example:
        >>> import energia as en, jax, jax.numpy as jnp
        >>> data = jax.random.normal(jax.random.key(0), (500, 2))
        >>> well = en.DoubleWell(shape=2)
        >>> nce = en.objectives.NCE(noise=en.Gaussian(jnp.zeros(2), scale=2.0), ratio=5)
        >>> fit = en.fit(well, data, nce, key=jax.random.key(1), num_steps=10)
        >>> fit.learned["log_partition"].shape
        ()
    """

    noise: Energy | None = eqx.field(default=None, kw_only=True)
    ratio: int = eqx.field(default=1, static=True, kw_only=True)

    def __check_init__(self):
        check_count(self.ratio, "ratio", 1)
        if self.noise is not None and not isinstance(self.noise, Energy):
            raise TypeError(f"noise= must be an energy, got {self.noise!r}")

    def check(self, energy: Energy, data: Shapes) -> None:
        self.free_energy(energy, data)
        for name in self.given:
            if not isinstance(energy.supports[name], Discrete):
                raise ValueError(
                    f"NCE learns log Z for each state of {name!r}, whose support is "
                    f"{energy.supports[name]}: .constrain({name}=en.Categorical(...)), or learn "
                    "with 'cnce', where the normaliser cancels"
                )
        modelled = self.modelled(energy, data)
        if self.noise is None:
            return
        noise, variables = self.noise, self.noise.variables
        if not set(modelled) <= set(variables) <= {*modelled, *self.given}:
            raise ValueError(
                f"the noise {noise._formula()} must be an energy of {modelled}, the variables that "
                f"are modelled; its variables are {variables}"
            )
        for name in modelled:
            own, other = energy.supports[name], noise.supports[name]
            if own is not None and not isinstance(own, Real) and other not in (None, own):
                raise ValueError(
                    f"{name!r} is {own} in {energy._formula()}, and {other} in the noise "
                    f"{noise._formula()}, whose draws would leave its support: give noise on "
                    f"{own}, or None for a law that is fitted"
                )
        given = {name: data[name] for name in self.given if name in variables}
        if not eqx.filter_eval_shape(lambda given: noise._exact(given) is not None, given):
            raise ValueError(
                f"the noise {noise._formula()} has no exact draws: give a density that has, such "
                "as en.Gaussian or en.GaussianMixture"
            )

    def init(
        self, energy: Energy, data: Values, key: jax.Array
    ) -> tuple[dict[str, jax.Array], Fitted | None]:
        energy = self.free_energy(energy, data)
        noise = None if self.noise is not None else _fitted(energy, data, self.given)
        row_key, draw_key = jax.random.split(key)
        rows = jax.random.randint(row_key, (FIRST_DRAWS,), 0, rows_in(data))

        def log_weight(row: Values, key: jax.Array) -> jax.Array:
            contrast = self._contrast(energy, row, noise)
            return contrast.log_ratio(contrast.draw(key))

        picked = {name: values[rows] for name, values in data.items()}
        weights = jax.vmap(log_weight)(picked, jax.random.split(draw_key, FIRST_DRAWS))
        first = jax.nn.logsumexp(weights) - math.log(FIRST_DRAWS)
        first = jnp.where(jnp.isfinite(first), first, 0.0)
        supports = [energy.supports[name] for name in self.given]
        states = tuple(s.num_states for s in supports if isinstance(s, Discrete))
        return {"log_partition": jnp.full(states, first)}, noise

    def loss(
        self,
        energy: Energy,
        learned: dict[str, jax.Array],
        batch: Values,
        state: Fitted | None,
        key: jax.Array,
    ) -> tuple[jax.Array, Fitted | None, dict[str, jax.Array]]:
        energy, table = self.free_energy(energy, batch), learned["log_partition"]

        def row_loss(row: Values, key: jax.Array) -> jax.Array:
            contrast = self._contrast(energy, row, state)
            where = tuple(_number(energy, name, row[name]) for name in self.given)
            offset = table[where] + math.log(self.ratio)
            noise = jax.vmap(contrast.draw)(jax.random.split(key, self.ratio))
            up = contrast.log_ratio(contrast.datum) - offset
            down = jax.vmap(contrast.log_ratio)(noise) - offset
            return jax.nn.softplus(-up) + jnp.sum(jax.nn.softplus(down))

        loss = mean_over_rows(row_loss, batch, jax.random.split(key, rows_in(batch)))
        return loss, state, {"log_partition": jnp.mean(table)}

    def _contrast(self, energy: Energy, row: Values, fitted: Fitted | None) -> _Contrast:
        given = {name: row[name] for name in self.given}
        datum = {name: value for name, value in row.items() if name not in given}
        if fitted is not None:
            model = conditioned(energy, given)
            noise, own, datum = fitted, {}, model.unconstrain(datum)
        else:
            assert self.noise is not None
            noise, model = self.noise, energy.condition(**given) if given else energy
            own = {name: value for name, value in given.items() if name in noise.variables}
        exact = noise._exact(own)
        assert exact is not None
        log_normaliser = exact.log_partition

        def log_ratio(values: Values) -> jax.Array:
            return noise.at({**values, **own}) + log_normaliser - model.at(values)

        return _Contrast(log_ratio, datum, exact.draw)


@registry.register("cnce")
class CNCE(Objective):
    r"""Conditional noise-contrastive estimation.

    Each row $x$ is told from noise near it, $y = x + s\xi$ with $\xi \sim N(0, I)$ times the
    standard deviations of the data. The noise is symmetric, so that normalisers and noise densities
    cancel, and nothing is learned beside the energy:

    $2\, \mathbb{E} \log(1 + e^{E(x) - E(y)})$

    is least where $e^{-E}$ is proportional to the density of the data, whatever it is given. For
    small $s$ it is $2 \log 2 + \tfrac{s^2}{2} J$ with the loss $J$ of score matching, on data of
    unit variance. Bounded variables are moved in unconstrained coordinates.

    Args:
        noise_scale: $s$, positive; None: $2.4 / \sqrt{D}$ for $D$ entries, where energies differ by
            about one.
        ratio: noise draws for each row, at least 1.
        given: variables that are conditioned on.

    References:
        Ceylan and Gutmann (2018), Conditional noise-contrastive estimation of unnormalised models.

    Example:
        >>> import energia as en
        >>> en.objectives.CNCE(noise_scale=0.5, ratio=10).ratio
        10
    """

    noise_scale: jax.Array | None = eqx.field(default=None, converter=optional_float, kw_only=True)
    ratio: int = eqx.field(default=1, static=True, kw_only=True)

    def __check_init__(self):
        check_count(self.ratio, "ratio", 1)
        scale = self.noise_scale
        if scale is not None and is_concrete(scale) and not 0 < float(scale) < np.inf:
            raise ValueError(f"noise_scale= must be positive and finite, got {scale}")

    def check(self, energy: Energy, data: Shapes) -> None:
        self.free_energy(energy, data)
        check_continuous(self, energy, data, "CNCE adds Gaussian noise")

    def init(self, energy: Energy, data: Values, key: jax.Array) -> tuple[None, jax.Array]:
        rows = _flat_rows(self.free_energy(energy, data), data, self.given)
        return None, _deviations(rows)

    def loss(
        self, energy: Energy, learned: None, batch: Values, state: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, jax.Array, dict[str, jax.Array]]:
        energy = self.free_energy(energy, batch)
        scale = 2.4 / math.sqrt(state.size) if self.noise_scale is None else self.noise_scale

        def row_loss(row: Values, key: jax.Array) -> jax.Array:
            given = {name: row[name] for name in self.given}
            target = conditioned(energy, given)
            moving = {name: value for name, value in row.items() if name not in given}
            x, unravel = ravel_pytree(target.unconstrain(moving))
            noise = jax.random.normal(key, (self.ratio, x.size), x.dtype)
            energies = jax.vmap(lambda x: target.at(unravel(x)))
            near = energies(jnp.concatenate([x[None], x + scale * state * noise]))
            return 2 * jnp.mean(jax.nn.softplus(near[0] - near[1:]))

        loss = mean_over_rows(row_loss, batch, jax.random.split(key, rows_in(batch)))
        return loss, state, {}


def _number(energy: Energy, name: str, value: jax.Array) -> jax.Array:
    """The number of a state of a finite variable."""
    support = energy.supports[name]
    assert isinstance(support, Discrete)
    digits = support.positions(value).reshape(-1)
    count = len(support.states)
    return jnp.sum(digits * np.array([count**i for i in range(digits.size)][::-1], np.int32))


def _flat_rows(energy: Energy, data: Values, given: tuple[str, ...]) -> jax.Array:
    """Each row's modelled variables in unconstrained coordinates, as one vector."""

    def flat(row: Values) -> jax.Array:
        target = conditioned(energy, {name: row[name] for name in given})
        return ravel_pytree(target.unconstrain({n: row[n] for n in row if n not in given}))[0]

    return jax.vmap(flat)(data)


def _deviations(rows: jax.Array) -> jax.Array:
    """Standard deviations; an entry that never varies has a thousandth of the largest."""
    scale = jnp.std(rows, 0)
    largest = jnp.max(scale)
    return jnp.maximum(scale, 1e-3 * jnp.where(largest > 0, largest, 1.0))


def _fitted(energy: Energy, data: Values, given: tuple[str, ...]) -> Fitted:
    """A law with the moments and frequencies of the data, in unconstrained coordinates."""
    shapes = {n: rows.shape[1:] for n, rows in data.items() if n not in given}
    unknown = {n: Real(shape) for n, shape in shapes.items() if energy.supports[n] is None}
    energy = energy.constrain(**unknown) if unknown else energy

    def space(row: Values) -> Unconstrained:
        return conditioned(energy, {name: row[name] for name in given})

    rows = jax.vmap(lambda row: space(row).unconstrain({n: row[n] for n in shapes}))(data)
    unit = Fitted.unit(space({name: values[0] for name, values in data.items()}))
    return unit.fit(unit.summary(rows), rows_in(data) * DATA_WEIGHT)
