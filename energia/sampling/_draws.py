"""Draws: what `sample` returns."""

import dataclasses
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from energia._types import check_count, put
from energia.diagnostics import (
    ConvergenceWarning,
    Diagnosis,
    Kind,
    diagnose,
    loo,
    quick_check,
    summary_table,
    to_arviz,
)
from energia.energies._energy import Energy
from energia.paths import Path
from energia.samplers._sampler import Kernel, Minimiser, ParticleSampler, Sampler
from energia.sampling import _driver, _loo, _memory, _predictive, _storage
from energia.sampling._progress import Progress


class _Arrays(Mapping[str, Any]):
    """NumPy arrays by name, handed out as JAX arrays."""

    def __init__(self, arrays: Mapping[str, np.ndarray]):
        self._arrays = dict(arrays)

    def __getitem__(self, name: str) -> Any:
        if name not in self._arrays:
            raise KeyError(f"{name!r}; there are {', '.join(self._arrays)}")
        return put(self._arrays[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)

    def __repr__(self) -> str:
        return (
            "{" + ", ".join(f"{n}: {a.dtype}{list(a.shape)}" for n, a in self._arrays.items()) + "}"
        )


@dataclasses.dataclass(frozen=True, repr=False)
class Draws(Mapping[str, Any]):
    r"""Draws by variable name, with statistics, diagnostics, saving and going on.

    `draws['x']` is a JAX array of shape (chain, draw, \*shape); `draws.stats['lp']` is minus the
    energy at each draw, and the other statistics have ArviZ's names.

    Example:
        >>> import energia as en, jax, jax.numpy as jnp
        >>> draws = en.sample(en.Gaussian(jnp.zeros(2)), "mala", key=jax.random.key(0))
        >>> draws["x"].shape, draws.stats["lp"].shape, draws.diagnose(show=False).ok
        ((4, 1000, 2), (4, 1000), True)

    Attributes:
        energy: what was sampled; None after `load` without it.
        sampler: the sampler as it was configured.
        why: the reason for it, where 'auto' chose it.
        positions: the draws as NumPy arrays.
        stats: the statistics of each draw, shape (chain, draw), and a last axis for some.
    """

    energy: Energy | None
    sampler: Kernel | ParticleSampler | None
    positions: dict[str, np.ndarray]
    _stats: dict[str, np.ndarray]
    steps: int
    num_warmup: int
    thin: int
    chain_keys: np.ndarray
    run: _driver.Run | None
    chains: _driver.Chain | None
    meta: dict[str, Any] = dataclasses.field(default_factory=dict)
    why: str | None = None
    _groups: dict[str, dict[str, np.ndarray]] = dataclasses.field(default_factory=dict)

    def __getitem__(self, name: str) -> Any:
        return _Arrays(self.positions)[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.positions)

    def __len__(self) -> int:
        return len(self.positions)

    def __eq__(self, other: object) -> bool:
        return self is other

    def __hash__(self) -> int:
        return id(self)

    @property
    def stats(self) -> Mapping[str, Any]:
        """Statistics by ArviZ's names, of shape (chain, draw), and a last axis for some."""
        return _Arrays(self._stats)

    @property
    def groups(self) -> dict[str, Mapping[str, Any]]:
        r"""What `predictive` added, by ArviZ's groups: `draws.groups['posterior_predictive']['y']`.

        Functions of draws have shape (chain, draw, \*shape), observed data (\*shape).
        """
        return {group: _Arrays(arrays) for group, arrays in self._groups.items()}

    @property
    def num_chains(self) -> int:
        """How many chains."""
        return len(self.chain_keys)

    @property
    def num_samples(self) -> int:
        """How many draws a chain."""
        return next(iter(self._stats.values())).shape[1] if self._stats else 0

    @property
    def tuned_sampler(self) -> Any:
        """The sampler as warm-up left it; its arrays have a leading axis over chains."""
        return None if self.chains is None else self.chains.kernel

    def extend(self, num_samples: int, *, progress: bool | None = None) -> "Draws":
        """Go on from the last state: equal to one longer run.

        What `predictive` made belongs to the draws so far and is dropped, since its function is not
        kept: call `predictive` on what comes back. Observed data stay.

        Args:
            num_samples: how many more draws a chain.
            progress: as in `sample`.

        Returns:
            All draws, the old ones first.

        Raises:
            ValueError: when the draws were loaded without their energy, or are particles.

        Example:
            >>> import energia as en, jax, jax.numpy as jnp
            >>> normal = en.Gaussian(jnp.zeros(2))
            >>> en.sample(normal, "mala", key=jax.random.key(0)).extend(500)["x"].shape
            (4, 1500, 2)
        """
        return self._continue(check_count(num_samples, "num_samples", 1), progress)

    def _continue(self, count: int, progress: bool | None) -> "Draws":
        if isinstance(self.sampler, ParticleSampler):
            raise ValueError(
                "particles of a run cannot go on: sample again with a larger num_samples"
            )
        if self.run is None or self.chains is None:
            raise ValueError(
                "these draws cannot go on, they were loaded without their energy: "
                "Draws.load(path, energy=E)"
            )
        begin = self.steps
        end = (self.num_warmup if begin == 0 else begin) + count * self.thin
        _driver.check_length(end)
        row = _driver.kept_shapes(self.run, self.chains.state.position)
        _memory.check_room(row, (self.num_samples + count) * self.num_chains)
        label = f"{type(self.sampler).__name__}, {self.num_chains} chains"
        with Progress(label, (end - begin) * self.num_chains, progress) as bar:
            per_call = self.num_chains if self.run.whole else 1
            chains, seen = _driver.advance(
                self.run, self.chain_keys, self.chains, begin, end, lambda n: bar(n * per_call)
            )
        positions, stats = seen["position"], seen["stats"]
        order = {name: index for index, name in enumerate(self.run.target.variables)}
        names = sorted(positions, key=lambda name: order.get(name, len(order)))  # JAX sorts names
        positions = {name: positions[name] for name in names}
        if self.num_samples:
            positions = {n: np.concatenate([self.positions[n], positions[n]], 1) for n in positions}
            stats = {n: np.concatenate([self._stats[n], stats[n]], 1) for n in stats}
        longer = dataclasses.replace(
            self,
            positions=positions,
            _stats=stats,
            steps=end,
            chains=chains,
            _groups={n: a for n, a in self._groups.items() if n == "observed_data"},
        )
        longer._warn()
        return longer

    def _warn(self) -> None:
        """Tell what a quick check finds wrong."""
        if problems := quick_check(self.positions, self._stats, self._kind, thin=self.thin):
            warnings.warn(ConvergenceWarning(problems), stacklevel=4)

    @property
    def _kind(self) -> Kind:
        """What the draws are, for the verdict on them."""
        if not isinstance(self.sampler, ParticleSampler):
            return "chains"
        return "minima" if self.sampler.has(Minimiser) else "particles"

    # --- functions of draws

    def predictive(
        self,
        fn: Callable[..., Any],
        *,
        key: jax.Array | None = None,
        name: str | None = None,
        group: str = "posterior_predictive",
        observed: Mapping[str, Any] | None = None,
    ) -> "Draws":
        r"""Push every draw through a function: posterior predictions and derived quantities.

        With draws of $p(\theta \mid y)$ and $\tilde y = f(\theta, \text{key})$ a draw of
        $p(\tilde y \mid \theta)$, the results are draws of the posterior predictive
        $\int p(\tilde y \mid \theta)\, p(\theta \mid y)\, d\theta$.

        The function is vmapped over chains and draws and compiled once, in chunks of draws such
        that the largest array it makes stays at 32 MiB. The key of draw d of chain c depends on
        `key`, c and d alone. The same function object again compiles nothing.

        Args:
            fn: a function of one draw, or an Equinox module. Its parameters without a default are
                variables of the draws, and `key` for a fresh typed key in every draw. It returns an
                array, or a dict of arrays by name.
            key: a typed JAX key; needed where `fn` takes one.
            name: what an array that `fn` returns is called; the name of `fn` by default.
            group: ArviZ's group for the results: 'posterior_predictive', 'predictions' (for new
                covariates), 'log_likelihood' or 'log_prior'.
            observed: the data that were predicted, by name, each of the shape of its predictions:
                ArviZ's group observed_data, which predictive checks compare with.

        Returns:
            The same draws with the results in `groups` beside those of earlier calls, in
            `to_arviz()` and in what `save` writes. A name used again is replaced.

        Raises:
            TypeError: when `fn` is no function, or returns what is no array.
            ValueError: when `fn` takes what is no variable, needs `key=` or `name=`, the group is
                none of ArviZ's, or observed data do not fit the predictions.

        References:
            Gelman, Meng and Stern (1996), Posterior predictive assessment of model fitness via
            realized discrepancies.

        Example:
            >>> import energia as en, jax, jax.numpy as jnp
            >>> draws = en.sample(en.Gaussian(0.0).rename(x="mu"), "mala", key=jax.random.key(0))
            >>> def y(mu, key):
            ...     return mu + jax.random.normal(key, (8,))
            >>> draws = draws.predictive(y, key=jax.random.key(1), observed={"y": jnp.zeros(8)})
            >>> draws.groups["posterior_predictive"]["y"].shape
            (4, 1000, 8)
            >>> sorted(draws.to_arviz().children)
            ['observed_data', 'posterior', 'posterior_predictive', 'sample_stats']
        """
        _predictive.check_group(group)
        made = _predictive.predict(fn, name, self.positions, key)
        groups = {**self._groups, group: {**self._groups.get(group, {}), **made}}
        if data := _predictive.check_observed(observed, groups[group]):
            groups["observed_data"] = {**groups.get("observed_data", {}), **data}
        return dataclasses.replace(self, _groups=groups)

    def loo(self, likelihood: str | Energy | None = None, **kwargs: Any) -> Any:
        r"""Leave-one-out cross-validation of a data factor, by Pareto-smoothed importance sampling.

        Estimates $\sum_i \log p(y_i \mid y_{-i})$ over the rows of `en.total(likelihood, y=Y)`,
        from $\log p(y_i \mid \theta) = -E(\theta, y_i)$ at each draw.

        The likelihood must be **normalised in** $y$: $\int e^{-E(\theta, y)} dy = 1$ for every
        $\theta$. A term in $\theta$ that is left out (the $\log\sigma$ of a normal density, say)
        makes the number meaningless, a constant that is left out shifts it by as much a row. The
        draws must be of the posterior that holds this factor once, at weight 1.

        Args:
            likelihood: the name of the likelihood inside `en.total(...)` in the energy (of any of
                its parts, where it is composed or marginalised) or of its rows ('y'), or the data
                factor `en.total(...)` itself; None: the only data factor that there is.
            **kwargs: passed on to `arviz_stats.loo`.

        Returns:
            ArviZ's `ELPDData`: `.elpd`, `.se`, `.p` (the effective number of parameters),
            `.elpd_i` and `.pareto_k` by row; above `.good_k` a row's number cannot be trusted, and
            ArviZ warns. `arviz_stats.compare` takes several of them.

        Raises:
            ValueError: when no data factor or more than one is meant (the message lists them), it
                has variables that were not drawn or a weight other than 1, or a log-likelihood is
                not finite.

        References:
            Vehtari, Gelman and Gabry (2017), Practical Bayesian model evaluation using
            leave-one-out cross-validation and WAIC.

        Example:
            >>> import energia as en, jax, jax.numpy as jnp
            >>> @en.energy
            ... def normal(mu, y):
            ...     return 0.5 * (y - mu) ** 2 + 0.5 * jnp.log(2 * jnp.pi)
            >>> prior = en.Gaussian(0.0, scale=5.0).rename(x="mu")
            >>> posterior = prior + en.total(normal, y=jnp.array([-1.0, 0.0, 1.0]))
            >>> result = en.sample(posterior, "mala", key=jax.random.key(0)).loo("normal")
            >>> result.kind, result.pareto_k.shape
            ('loo', (3,))
        """
        factor = _loo.choose(self.energy, likelihood)
        name = likelihood if isinstance(likelihood, str) else factor.names[0]
        return loo(self.positions, name, _loo.log_likelihood(factor, self.positions), **kwargs)

    # --- diagnostics

    def to_arviz(self) -> Any:
        """An xarray `DataTree` that every ArviZ function takes.

        It has the groups posterior and sample_stats, and those that `predictive` added.

        Example:
            >>> import energia as en, jax, jax.numpy as jnp
            >>> tree = en.sample(en.Gaussian(0.0), "mala", key=jax.random.key(0)).to_arviz()
            >>> dict(tree.posterior.sizes)
            {'chain': 4, 'draw': 1000}
        """
        return to_arviz(self.positions, self._stats, self._groups)

    def summary(self, **kwargs: Any) -> Any:
        """ArviZ's table: mean, sd, mcse, ess_bulk, ess_tail and r_hat of every entry.

        Args:
            **kwargs: passed on to `arviz_stats.summary` (`var_names=`, `round_to=`, ...).

        Returns:
            A pandas DataFrame.
        """
        return summary_table(self.to_arviz(), **kwargs)

    def diagnose(self, *, show: bool = True) -> Diagnosis:
        """Check convergence over every entry of every variable, and print a verdict with advice.

        Args:
            show: print the verdict.

        Returns:
            A `Diagnosis`: `.ok`, `.max_rhat`, `.min_ess`, `.divergences`, `.bfmi`, `.problems`,
            `.tempering`.
        """
        bias = None if self.sampler is None else self.sampler.bias()
        verdict = diagnose(self.positions, self._stats, self._kind, bias=bias, thin=self.thin)
        if self.why is not None:
            chosen = f"{type(self.sampler).__name__} was chosen: {self.why}"
            verdict = dataclasses.replace(verdict, notes=(*verdict.notes, chosen))
        if show:
            print(verdict)
        return verdict

    # --- keep

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write everything to one `.npz` file, atomically; no pickle.

        Args:
            path: the file; its folder must exist.
        """
        _storage.save(self, path)

    @staticmethod
    def load(
        path: str | os.PathLike[str],
        *,
        energy: Energy | Path | None = None,
        sampler: str | Sampler | None = None,
        collect: Callable[..., Any] | None = None,
    ) -> "Draws":
        """Read draws that `save` wrote.

        Args:
            path: the file.
            energy: the energy or the path that was sampled: with it the draws can `extend`.
            sampler: the sampler, where its class is not registered under a name.
            collect: the function that `sample` was given, where it was given one: to `extend`.

        Raises:
            ValueError: when the file is damaged or of another kind, or the energy or the sampler is
                another one.
        """
        return _storage.load(path, energy, sampler, collect)

    def __repr__(self) -> str:
        name = "?" if self.sampler is None else type(self.sampler).__name__
        shapes = ", ".join(f"{n} {list(a.shape[2:])}" for n, a in self.positions.items())
        return f"Draws({shapes}; {self.num_chains} chains × {self.num_samples} draws by {name})"
