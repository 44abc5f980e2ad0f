"""Chains that go along a path, tuned beforehand by a pilot run of other chains."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import numpy as np
from jax.sharding import Mesh

from energia._reference import fitted_to
from energia._types import Values, strong_tree
from energia.energies._energy import Energy
from energia.energies._fitted import Fitted
from energia.energies._unconstrained import Unconstrained
from energia.evaluate import _annealing
from energia.evaluate._bridge import Bridge, bridge, coordinates, target_of
from energia.paths import Path, geometric, reference_for
from energia.samplers import HMC, Auto, BlockGibbs, Gibbs
from energia.samplers._ladder import unit_reference
from energia.samplers._sampler import GradientBased, Kernel, registry
from energia.sampling._starts import check_scalar

TUNING_MOVES = 24  # of a pilot run at each level, where there is something to tune
MOVES = 4  # where there is not
CONDITIONAL_ESS = 0.5  # of a pilot run from one level to the next
RESAMPLE_BELOW = 0.5


@dataclasses.dataclass(frozen=True)
class Annealer:
    """A bridge with everything that runs along it.

    Args:
        bridge: the path.
        kernel: with no number unset.
        tuning: the state of its tuning before the first step.
        table: rows of the kernel's numbers, of the pilot run; None: the kernel's own.
        levels: s from 0 to 1.
        nodes: for each level the row of the table.
        num_chains: how many chains.
        key: the key of all runs.
        mesh: devices that share the chains.
    """

    bridge: Bridge
    kernel: Kernel
    tuning: Any
    table: Any
    levels: np.ndarray
    nodes: np.ndarray
    num_chains: int
    key: jax.Array
    mesh: Mesh | None

    @property
    def num_steps(self) -> int:
        """Levels after the first."""
        return len(self.levels) - 1

    @property
    def values(self) -> np.ndarray:
        """The path's variable, level by level."""
        known = np.asarray(self.bridge.levels, np.float64)
        return np.interp(self.levels, np.linspace(0, 1, known.size), known)

    def log_partition_at_start(self) -> float:
        """Log Z at s = 0."""
        return float(_at_start(self.bridge))

    def forward(self, *, resample: bool, key: jax.Array | None = None) -> _annealing.Run:
        """From exact draws of the reference to the target."""
        key = jax.random.fold_in(self.key, 1) if key is None else key
        key_start, key_run = jax.random.split(key)
        positions = _starts(self.bridge, jax.random.split(key_start, self.num_chains))
        below = RESAMPLE_BELOW if resample else 0.0
        plan = _annealing.plan(
            self.levels[1:], self.nodes[1:], resample_below=below, mesh=self.mesh
        )
        return self._run(plan, positions, 0.0, key_run)

    def backward(self, positions: Values) -> _annealing.Run:
        """From draws of the target to the reference."""
        plan = _annealing.plan(self.levels[-2::-1], self.nodes[-2::-1], mesh=self.mesh)
        return self._run(plan, positions, 1.0, jax.random.fold_in(self.key, 2))

    def ends(self) -> tuple[Values, np.ndarray]:
        """Draws of the target as sequential Monte Carlo leaves them, and their ancestors.

        Of other chains than those of `forward`; what descends from one start counts as one draw.
        """
        run = self.forward(resample=True, key=jax.random.fold_in(self.key, 3))
        share = np.exp(run.log_weights - np.max(run.log_weights))
        edges = np.cumsum(share) / share.sum()
        places = (np.arange(len(share)) + 0.5) / len(share)
        chosen = np.minimum(np.searchsorted(edges, places), len(share) - 1)
        return {n: rows[chosen] for n, rows in run.positions.items()}, run.ancestors[chosen]

    def _run(self, plan: Any, positions: Values, start: float, key: jax.Array) -> _annealing.Run:
        return _annealing.run(
            self.bridge, self.kernel, self.tuning, self.table, plan, positions, start, key
        )


def prepare(
    path: Path,
    kernel: str | Kernel,
    *,
    num_chains: int,
    num_steps: int,
    levels: Any,
    key: jax.Array,
    mesh: Mesh | None,
) -> Annealer:
    """Check everything, and make the pilot run.

    Its chains are others than those that weights come from, so that nothing that is tuned depends
    on them.
    """
    given = None if levels is None else coordinates(path, levels)
    between = bridge(path)
    check_scalar(target_of(path))
    pilot = Pilot(between, kernel, num_chains, jax.random.fold_in(key, 0), mesh)
    nodes, table = np.array([0.0, 1.0]), None
    if pilot.tunes or given is None:
        run = pilot.run()
        nodes, table = np.concatenate([[0.0], run.spacing]), run.table
    last = len(nodes) - 1
    where = np.linspace(0, last, num_steps + 1)
    schedule = np.interp(where, np.arange(last + 1), nodes.astype(np.float64))
    if given is not None:
        schedule, where = given, np.interp(given, nodes, np.arange(last + 1))
    rows = np.clip(np.round(where).astype(np.int32) - 1, 0, last - 1)
    numbers = table, schedule, rows, num_chains
    return Annealer(between, pilot.kernel, pilot.tuning, *numbers, key, mesh)


class Pilot:
    """A run that spaces levels and tunes a kernel on the way.

    Args:
        between: the path.
        kernel: by name or configured.
        num_chains: how many chains.
        key: a typed key.
        mesh: devices that share the chains.
    """

    def __init__(
        self,
        between: Bridge,
        kernel: str | Kernel,
        num_chains: int,
        key: jax.Array,
        mesh: Mesh | None,
    ):
        self.bridge, self.mesh = between, mesh
        moved, whole = between.at_target()
        chosen = step_kernel(kernel, whole, moved.variables, num_chains)
        chosen.check(moved if chosen.has(GradientBased) else whole, moved.variables)
        check_unbiased(chosen)
        key_start, self.key = jax.random.split(key)
        self.starts = _starts(between, jax.random.split(key_start, num_chains))
        self.tunes = bool(chosen.unset())
        self.kernel, self.tuning = chosen, None
        self.moves = TUNING_MOVES if self.tunes else MOVES
        if self.tunes:
            hosted = {name: np.asarray(rows) for name, rows in self.starts.items()}
            self.kernel, self.tuning = chosen.tune_init(moved, hosted, self.moves)

    def run(self) -> _annealing.Run:
        """Go to the target.

        Raises:
            ValueError: when that takes too many levels.
        """
        plan = _annealing.plan(
            np.zeros(1),
            moves=self.moves,
            resample_below=2.0,
            pilot=True,
            conditional_ess=CONDITIONAL_ESS,
            mesh=self.mesh,
        )
        fixed = self.bridge, self.kernel, self.tuning, None, plan
        run = _annealing.run(*fixed, self.starts, 0.0, self.key)
        if not run.reached:
            lost = np.isnan(np.asarray(_at_target(self.bridge, run.positions)))
            if lost.any():
                one = int(np.argmax(lost))
                first = {n: np.asarray(rows)[one].tolist() for n, rows in run.positions.items()}
                raise ValueError(
                    f"the energy is NaN where {int(lost.sum())} of {len(lost)} chains of the pilot "
                    f"run stand, one of them at {first} (unconstrained): declare the support with "
                    ".constrain, or give inf in place of NaN where the density is 0"
                )
            raise ValueError(
                f"the pilot run went through {run.num_levels} levels and reached only s = "
                f"{run.spacing[-1]:.3g} of the path from 0 to 1: the reference is too far from "
                "the target, or exp(-E) has no integral; give a reference= nearer to it"
            )
        return run


def path_to(
    energy: Energy | Path,
    reference: Energy | None,
    kernel: str | Kernel,
    num_chains: int,
    key: jax.Array,
    mesh: Mesh | None,
    data: Mapping[str, Any] | None = None,
) -> Path:
    """The path that is given, or the geometric one from a reference.

    Where no reference is given, and the energy has no prior in it, a law is fitted: to data that
    are given, else to where a pilot run ends.
    """
    if isinstance(energy, Path):
        if reference is not None:
            raise ValueError("reference= is for an energy; a path has its own first level")
        return energy
    if reference is not None:
        return geometric(reference, energy)
    target = Unconstrained(strong_tree(energy))
    unit = reference_for(target)
    if not isinstance(unit, Fitted):
        return geometric(unit, target)
    chosen = registry.resolve(kernel)
    if isinstance(chosen, Kernel):
        unit = unit_reference(chosen, target)
    path = geometric(unit, target)
    between = bridge(path)
    if data is not None and set(data) >= set(between.variables):
        positions = unconstrained_rows(between.joint, {n: data[n] for n in between.variables})
    else:
        pilot = Pilot(between, kernel, num_chains, jax.random.fold_in(key, 5), mesh)
        positions = pilot.run().positions
    keys = jax.random.split(jax.random.fold_in(key, 6), len(next(iter(positions.values()))))
    return geometric(fitted_to(unit, target, _completed(between, positions, keys)), target)


def exact_draws(between: Bridge, path: Path, num_chains: int, key: jax.Array) -> Values | None:
    """Independent draws of the target, where somebody knows them."""
    target = Unconstrained(target_of(path))
    if target._exact({}) is None:
        return None
    rows = _drawn(target, jax.random.split(jax.random.fold_in(key, 4), num_chains))
    return {name: rows[name] for name in between.variables}


@eqx.filter_jit
def _drawn(target: Unconstrained, keys: jax.Array) -> Values:
    exact = target._exact({})
    assert exact is not None
    return jax.vmap(exact.draw)(keys)


@eqx.filter_jit
def _starts(between: Bridge, keys: jax.Array) -> Values:
    return jax.vmap(between.start)(keys)


@eqx.filter_jit
def _at_start(between: Bridge) -> jax.Array:
    return between.log_partition()


@eqx.filter_jit
def _at_target(between: Bridge, positions: Values) -> jax.Array:
    return jax.vmap(lambda x: between.at_target()[0](**x))(positions)


@eqx.filter_jit
def _completed(between: Bridge, positions: Values, keys: jax.Array) -> Values:
    return jax.vmap(between.complete)(positions, keys)


@eqx.filter_jit
def unconstrained_rows(joint: Unconstrained, rows: Mapping[str, Any]) -> Values:
    return jax.vmap(lambda row: joint.unconstrain(dict(row)))(rows)


def check_unbiased(kernel: Kernel) -> None:
    """Raise where a kernel does not leave its energy's density as it is."""
    if (bias := kernel.bias()) is not None:
        raise ValueError(
            f"{type(kernel).__name__} does not leave exp(-E) invariant ({bias}), and log Z is "
            "right only where a kernel does: use 'hmc', 'mala' or 'gibbs'"
        )


def step_kernel(config: Any, energy: Energy, names: Sequence[str], num_chains: int) -> Kernel:
    """The kernel that is meant; 'auto' is one whose steps have one length, for chains in step."""
    kernel = registry.resolve(config)
    if isinstance(kernel, Auto):
        supports = {name: energy.supports[name] for name in names}
        finite = tuple(n for n, s in supports.items() if s is not None and s.discrete)
        others = tuple(name for name in names if name not in finite)
        if not finite:
            return HMC()
        if others:
            return BlockGibbs({finite: Gibbs(), others: HMC()})
        chosen, _ = kernel.choose(energy, num_chains)  # a layer that is summed out may help
        return Gibbs() if isinstance(chosen, BlockGibbs) else chosen
    if not isinstance(kernel, Kernel):
        raise TypeError(f"kernel= must be a Markov kernel or the name of one, got {config!r}")
    return kernel
