"""Draws: what `sample` returns."""

import dataclasses
import os
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from energia._types import check_count, put
from energia.diagnostics import (
    ConvergenceWarning,
    Diagnosis,
    diagnose,
    quick_check,
    summary_table,
    to_arviz,
)
from energia.energies._energy import Energy
from energia.samplers._sampler import Kernel, Sampler
from energia.sampling import _driver, _storage
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

    Attributes:
        energy: what was sampled; None after `load` without it.
        sampler: the sampler as it was configured.
        positions: the draws as NumPy arrays.
        stats: the statistics of each draw, shape (chain, draw).
    """

    energy: Energy | None
    sampler: Kernel | None
    positions: dict[str, np.ndarray]
    _stats: dict[str, np.ndarray]
    steps: int
    num_warmup: int
    thin: int
    chain_keys: np.ndarray
    run: _driver.Run | None
    chains: _driver.Chain | None
    meta: dict[str, Any] = dataclasses.field(default_factory=dict)

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
        """Statistics by ArviZ's names, each of shape (chain, draw)."""
        return _Arrays(self._stats)

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

        Args:
            num_samples: how many more draws a chain.
            progress: as in `sample`.

        Returns:
            All draws, the old ones first.

        Raises:
            ValueError: when the draws were loaded without their energy.

        Example:
            >>> import energia as en, jax, jax.numpy as jnp
            >>> normal = en.Gaussian(jnp.zeros(2))
            >>> en.sample(normal, "mala", key=jax.random.key(0)).extend(500)["x"].shape
            (4, 1500, 2)
        """
        return self._continue(check_count(num_samples, "num_samples", 1), progress)

    def _continue(self, count: int, progress: bool | None) -> "Draws":
        if self.run is None or self.chains is None:
            raise ValueError(
                "these draws cannot go on, they were loaded without their energy: "
                "Draws.load(path, energy=E)"
            )
        begin = self.steps
        end = (self.num_warmup if begin == 0 else begin) + count * self.thin
        _driver.check_length(end)
        label = f"{type(self.sampler).__name__}, {self.num_chains} chains"
        with Progress(label, (end - begin) * self.num_chains, progress) as bar:
            per_call = 1 if self.run.method == "parallel" else self.num_chains
            chains, seen = _driver.advance(
                self.run, self.chain_keys, self.chains, begin, end, lambda n: bar(n * per_call)
            )
        positions, stats = seen["position"], seen["stats"]
        if self.num_samples:
            positions = {n: np.concatenate([self.positions[n], positions[n]], 1) for n in positions}
            stats = {n: np.concatenate([self._stats[n], stats[n]], 1) for n in stats}
        longer = dataclasses.replace(
            self, positions=positions, _stats=stats, steps=end, chains=chains
        )
        if problems := quick_check(positions, stats):
            warnings.warn(ConvergenceWarning(problems), stacklevel=3)
        return longer

    # --- diagnostics

    def to_arviz(self) -> Any:
        """An xarray `DataTree` that every ArviZ function takes: posterior and sample_stats.

        Example:
            >>> import energia as en, jax, jax.numpy as jnp
            >>> tree = en.sample(en.Gaussian(0.0), "mala", key=jax.random.key(0)).to_arviz()
            >>> dict(tree.posterior.sizes)
            {'chain': 4, 'draw': 1000}
        """
        return to_arviz(self.positions, self._stats)

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
            A `Diagnosis`: `.ok`, `.max_rhat`, `.min_ess`, `.divergences`, `.bfmi`, `.problems`.
        """
        bias = None if self.sampler is None else self.sampler.bias()
        verdict = diagnose(self.positions, self._stats, bias=bias)
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
        energy: Energy | None = None,
        sampler: str | Sampler | None = None,
        collect: Callable[..., Any] | None = None,
    ) -> "Draws":
        """Read draws that `save` wrote.

        Args:
            path: the file.
            energy: the energy that was sampled: with it the draws can `extend`.
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
