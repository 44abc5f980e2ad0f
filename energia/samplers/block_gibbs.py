"""Block Gibbs: blocks of variables in turn, each by a kernel of its own."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax

from energia.energies._energy import Energy
from energia.samplers._combined import Combined, CombinedState, as_kernel
from energia.samplers._sampler import Kernel, Starts, registry
from energia.samplers.combine import Repeat
from energia.samplers.gibbs import Gibbs
from energia.samplers.hamiltonian import NUTS

Named = tuple[tuple[str, ...], Kernel]


@registry.register("block_gibbs")
class BlockGibbs(Combined):
    r"""Blocks of variables in turn, each moved by a kernel of its own. Exact where they are.

    Each kernel moves its block on the energy conditioned on the rest as it is; a kernel that leaves
    every conditional invariant leaves $e^{-E}$ invariant, though it draws from none exactly
    (Metropolis within Gibbs). So mixed discrete and continuous models are sampled. In warm-up each
    kernel is tuned on its own.

    Statistics of a block have its name behind theirs, `acceptance_rate_theta`; `acceptance_rate` is
    their mean, and `diverging` tells whether any did.

    Args:
        blocks: by a variable's name, or a tuple of names, a kernel or the name of one, or a pair
            (kernel, repeats) to move several times in a row. Every variable stands in a block at
            least. None: the discrete variables by `'gibbs'`, then the others by `'nuts'`.

    Raises:
        TypeError: when a kernel is none.
        ValueError: when there is no block, or names are none.

    References:
        Geman and Geman (1984), Stochastic relaxation, Gibbs distributions, and the Bayesian
        restoration of images. Tierney (1994), Markov chains for exploring posterior distributions.

    Example:
        >>> import energia as en, jax
        >>> @en.energy(x=en.Real(), z=en.Categorical(2))
        ... def labelled(x, z):
        ...     return 0.5 * (x - 2.0 * z) ** 2
        >>> sampler = en.samplers.BlockGibbs({"x": "nuts", "z": "gibbs"})
        >>> draws = en.sample(labelled, sampler, key=jax.random.key(0))
        >>> sorted(draws)
        ['x', 'z']
    """

    tunable = ("blocks",)

    blocks: tuple[Named, ...] | None

    def __init__(self, blocks: Any = None):
        self.blocks = None if blocks is None else _blocks(blocks)

    def _kernels(self) -> tuple[Kernel, ...]:
        if self.blocks is None:
            return Gibbs(), NUTS()
        return tuple(kernel for _, kernel in self.blocks)

    def _with(self, kernels: Sequence[Kernel]) -> "BlockGibbs":
        assert self.blocks is not None
        names = [names for names, _ in self.blocks]
        return BlockGibbs(tuple(zip(names, kernels, strict=True)))

    def _names(self, names: Sequence[str]) -> list[tuple[str, ...]]:
        assert self.blocks is not None
        return [own for own, _ in self.blocks]

    def unset(self) -> tuple[str, ...]:
        return self.tunable if self.blocks is None else super().unset()

    def check_set(self) -> None:
        Kernel.check_set(self) if self.blocks is None else super().check_set()

    def check(self, energy: Energy, names: Sequence[str]) -> None:
        if self.blocks is None:
            return self._chosen(energy, names).check(energy, names)
        covered = [name for own, _ in self.blocks for name in own]
        if unknown := [name for name in covered if name not in names]:
            raise TypeError(
                f"BlockGibbs has a block of {unknown}; the variables are {tuple(names)}"
            )
        if missing := [name for name in names if name not in covered]:
            raise TypeError(
                f"BlockGibbs has no block for {missing} of {energy._formula()}: give it a kernel, "
                "or fix it with .condition(...)"
            )
        super().check(energy, names)

    def tune_init(
        self, energy: Energy, positions: Starts, num_warmup: int
    ) -> tuple["BlockGibbs", Any]:
        if self.blocks is None:
            chosen = self._chosen(energy, energy.variables)
            return chosen.tune_init(energy, positions, num_warmup)
        return super().tune_init(energy, positions, num_warmup)

    def step(
        self, energy: Energy, state: CombinedState, key: jax.Array
    ) -> tuple[CombinedState, dict[str, jax.Array]]:
        assert self.blocks is not None
        return self._in_turn(energy, state, key, ["_".join(names) for names, _ in self.blocks])

    def _chosen(self, energy: Energy, names: Sequence[str]) -> "BlockGibbs":
        """Blocks by the kinds of the variables."""
        discrete = tuple(n for n in names if (s := energy.supports[n]) is not None and s.discrete)
        others = tuple(name for name in names if name not in discrete)
        blocks = ((discrete, Gibbs()), (others, NUTS()))
        return BlockGibbs(tuple((own, kernel) for own, kernel in blocks if own))


def _blocks(blocks: Any) -> tuple[Named, ...]:
    pairs = list(blocks.items() if isinstance(blocks, Mapping) else blocks)
    if not pairs:
        raise ValueError("BlockGibbs needs a block at least: {'theta': 'nuts', 'z': 'gibbs'}")
    found = []
    for key, value in pairs:
        names = (key,) if isinstance(key, str) else tuple(key)
        if not names or len(set(names)) < len(names) or not all(isinstance(n, str) for n in names):
            raise ValueError(
                "a block of BlockGibbs is a variable's name or a tuple of different ones, got "
                f"{key!r}"
            )
        if isinstance(value, tuple):
            if len(value) != 2:
                raise ValueError(f"a block of BlockGibbs takes (kernel, repeats), got {value!r}")
            value = Repeat(*value)
        found.append((names, as_kernel(value, "BlockGibbs")))
    return tuple(found)
