"""A sampler chosen by the energy, the number of chains and the device."""

import math

import jax

from energia.energies._energy import Energy
from energia.energies._free_energy import has_closed_form
from energia.samplers._sampler import Kernel, Sampler, registry
from energia.samplers.block_gibbs import BlockGibbs
from energia.samplers.discrete import GibbsWithGradients
from energia.samplers.ensemble import ChEESHMC
from energia.samplers.gibbs import Gibbs
from energia.samplers.hamiltonian import NUTS
from energia.supports import Support

MANY_CHAINS = 64
FEW_ENTRIES = 256


@registry.register("auto")
class Auto(Sampler):
    """Choose a kernel; `draws.sampler` is what was chosen, and `draws.diagnose()` says why.

    - Continuous variables: `NUTS`; `ChEESHMC` on an accelerator for 64 chains or more, which there
      run in step and would all wait for the deepest tree of NUTS.
    - Discrete variables: `Gibbs` where conditionals are known in closed form or entries are few
      (256), else `GibbsWithGradients`, which moves where the gradient says it pays.
    - Both: `BlockGibbs`, the discrete ones by `Gibbs` and the others by `NUTS`.

    Example:
        >>> import energia as en
        >>> kernel, why = en.samplers.Auto().choose(en.Ring(), num_chains=4)
        >>> type(kernel).__name__, why
        ('NUTS', 'continuous variables, 4 chains on a cpu')
    """

    def choose(self, energy: Energy, num_chains: int) -> tuple[Kernel, str]:
        """The kernel for an energy, and the reason for it."""
        device = jax.default_backend()
        supports = energy.supports
        discrete = {n: s for n, s in supports.items() if s is not None and s.discrete}
        chains = f"{num_chains} chain{'s' * (num_chains > 1)} on a {device}"
        if not discrete:
            if device != "cpu" and num_chains >= MANY_CHAINS:
                return ChEESHMC(), f"continuous variables, {chains}: trajectories of one length"
            return NUTS(), f"continuous variables, {chains}"
        if len(discrete) < len(supports):
            return BlockGibbs(), f"discrete {_listed(discrete)} beside continuous variables"
        entries = sum(math.prod(support.shape) for support in discrete.values())
        shapes = {n: jax.ShapeDtypeStruct(s.shape, s.dtype) for n, s in discrete.items()}
        if all(has_closed_form(energy, name, shapes) for name in discrete):
            return Gibbs(), f"discrete {_listed(discrete)}, conditionals in closed form"
        if entries <= FEW_ENTRIES:
            return Gibbs(), f"discrete {_listed(discrete)} of {entries} entries in all"
        why = f"discrete {_listed(discrete)} of {entries} entries, without closed-form conditionals"
        return GibbsWithGradients(), why


def _listed(names: dict[str, Support]) -> str:
    return ", ".join(map(repr, names))
