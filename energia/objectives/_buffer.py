"""The replay buffer: chains that persist between training steps."""

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from energia._types import Values

POLICIES = ("slots", "fifo", "reservoir")
MAX_COUNT = 2**30  # counted no further, in 32 bits


def check_policy(policy: str, name: str) -> None:
    """Raise where a policy is none that buffers know."""
    if policy not in POLICIES:
        raise ValueError(f"{name}= must be one of {POLICIES}, got {policy!r}")


class ReplayBuffer(eqx.Module):
    """Values of variables in a fixed number of slots, on the device.

    Slots are drawn as a random contiguous block (around the end, where need be): every slot is
    equally likely, none comes twice in a draw, and no sort is paid for. Where what became of them
    goes is the policy's matter (`places`).

    Args:
        values: arrays by variable name with a leading axis over slots.
        policy: 'slots': back where it was drawn, so that each slot is one chain. 'fifo': in place
            of what was written longest ago. 'reservoir': so that the slots are an even draw of all
            that was ever written; the n-th sample takes a random slot with probability size / n,
            else it is left out.
        count: how many samples were written, those of the beginning included (of 'fifo' up to whole
            turns); None: they alone.

    References:
        Vitter (1985), Random sampling with a reservoir (algorithm R). Du, Li, Tenenbaum and
        Mordatch (2021), Improved contrastive divergence training of energy-based models.

    Example:
        >>> import energia as en, jax, jax.numpy as jnp
        >>> buffer = en.objectives.ReplayBuffer({"x": jnp.arange(8.0)})
        >>> slots, drawn = buffer.draw(jax.random.key(0), 3)
        >>> buffer.size, bool(jnp.all(drawn["x"] == slots))
        (8, True)
    """

    values: Values
    policy: str = eqx.field(static=True)
    count: jax.Array | None

    def __init__(self, values: Values, policy: str = "slots", count: ArrayLike | None = None):
        check_policy(policy, "policy")
        self.values, self.policy, self.count = values, policy, None
        if policy != "slots":
            self.count = jnp.asarray(self.size if count is None else count, jnp.int32)

    @property
    def size(self) -> int:
        """How many slots."""
        return next(iter(self.values.values())).shape[0]

    def draw(self, key: jax.Array, count: int) -> tuple[jax.Array, Values]:
        """Slots, and the values that stand in them.

        Raises:
            ValueError: when there are fewer slots than that.
        """
        if count > self.size:
            raise ValueError(
                f"a replay buffer of {self.size} chains cannot give {count}: buffer_size= must be "
                "at least the batch size"
            )
        first = jax.random.randint(key, (), 0, self.size)
        slots = (first + jnp.arange(count)) % self.size
        return slots, {name: rows[slots] for name, rows in self.values.items()}

    def places(self, slots: jax.Array, key: jax.Array) -> jax.Array:
        """The slots to write what was drawn from `slots` to; one past the last is left out.

        No slot comes twice, as which of two writes stays may differ from variable to variable.
        """
        if self.count is None:
            return slots
        numbers = self.count + jnp.arange(len(slots))
        if self.policy == "fifo":
            return numbers % self.size
        places, order = jax.random.randint(key, slots.shape, 0, numbers + 1), jnp.arange(len(slots))
        last = jnp.zeros(self.size, jnp.int32).at[places].max(order)
        return jnp.where(last[places] == order, places, self.size)

    def write(self, slots: jax.Array, values: Values) -> "ReplayBuffer":
        """The buffer with other values in these slots, of `places`."""
        rows = {name: old.at[slots].set(values[name]) for name, old in self.values.items()}
        if self.count is None:
            return ReplayBuffer(rows)
        count = self.count + len(slots)
        count = count % self.size if self.policy == "fifo" else jnp.minimum(count, MAX_COUNT)
        return ReplayBuffer(rows, self.policy, count)
