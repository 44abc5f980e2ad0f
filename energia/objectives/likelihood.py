"""Maximum likelihood, exactly."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from energia._types import Values
from energia.energies._elimination import evaluate, plan
from energia.energies._energy import Energy
from energia.objectives._objective import Objective, Shapes, registry
from energia.supports import Continuous


def log_partition(energy: Energy, given: Mapping[str, Any]) -> jax.Array:
    r"""$\log Z$ of the variables that are not given: in closed form, or by elimination.

    Raises:
        ValueError: when it is neither.
    """
    exact = energy._exact(given)
    if exact is not None:
        return exact.log_partition
    names = [name for name in energy.variables if name not in given]
    shapes = {n: jax.ShapeDtypeStruct(jnp.shape(v), jnp.result_type(v)) for n, v in given.items()}
    return -evaluate(plan(energy, names, shapes), given)


@registry.register("mle")
class MLE(Objective):
    r"""Maximum likelihood, with the exact normaliser: the loss is the negative log-likelihood.

    $-\overline{\log p(x)} = \overline{E(x)} + \log Z$, in nats a row, with latent variables summed
    out of $E$. $\log Z$ is taken in closed form where the energy has one, else by variable
    elimination over finite supports, of up to $2^{20}$ states at once: a lattice of 4 by 5 spins, a
    Boltzmann machine whose smaller layer has 20 units. The gradient has no sampling error but that
    of the batch. For small models, and to judge other objectives by.

    Args:
        given: variables that are conditioned on. The normaliser is then one for each row.

    Example:
        >>> import energia as en, jax, jax.numpy as jnp
        >>> ising = en.Ising((2, 2), coupling=0.0, field=0.0)
        >>> spins = jnp.ones((1, 2, 2))
        >>> mle = en.objectives.MLE()
        >>> round(float(mle.loss(ising, None, {"x": spins}, None, jax.random.key(0))[0]), 4)
        2.7726
    """

    def check(self, energy: Energy, data: Shapes) -> None:
        self.free_energy(energy, data)
        if unknown := [n for n in self.modelled(energy, data) if energy.supports[n] is None]:
            raise ValueError(
                f"MLE sums over all values of {unknown[0]!r}, and its support is unknown: say "
                f"which values it takes, .constrain({unknown[0]}=en.Categorical(...)) or the like"
            )
        given = {name: data[name] for name in self.given}
        try:
            jax.eval_shape(lambda given: log_partition(energy, given), given)
        except ValueError as error:
            supports = energy.supports
            for name in self.modelled(energy, data):
                if isinstance(supports[name], Continuous):
                    raise ValueError(
                        f"MLE needs the normaliser of {energy._formula()}, and no closed form is "
                        f"known: {name!r} is {supports[name]}, with too many values to sum over. "
                        "'dsm', 'ssm' and 'sm' learn continuous variables without it, 'nce' and "
                        "'pcd' estimate it or its gradient"
                    ) from None
            raise ValueError(
                f"MLE needs the normaliser of {energy._formula()}: {error}. Where it is out of "
                "reach, 'pcd' and 'nce' estimate it or its gradient"
            ) from error

    def init(self, energy: Energy, data: Values, key: jax.Array) -> tuple[None, None]:
        return None, None

    def loss(
        self, energy: Energy, learned: None, batch: Values, state: None, key: jax.Array
    ) -> tuple[jax.Array, None, dict[str, jax.Array]]:
        free = self.free_energy(energy, batch)
        given = {name: batch[name] for name in self.given}
        if given:
            normaliser = jnp.mean(jax.vmap(lambda row: log_partition(energy, row))(given))
        else:
            normaliser = log_partition(energy, given)
        loss = jnp.mean(jax.vmap(free.at)(batch)) + normaliser
        return loss, None, {"log_partition": normaliser}
