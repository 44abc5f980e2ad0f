"""The replay buffer: chains that persist between training steps."""

import equinox as eqx
import jax
import jax.numpy as jnp

from energia._types import Values


class ReplayBuffer(eqx.Module):
    """Values of variables in a fixed number of slots, on the device.

    Slots are drawn as a random contiguous block (around the end, where need be): every slot is
    equally likely, none comes twice in a draw, and no sort is paid for. What was drawn is written
    back where it was drawn.

    Args:
        values: arrays by variable name with a leading axis over slots.
    """

    values: Values

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

    def write(self, slots: jax.Array, values: Values) -> "ReplayBuffer":
        """The buffer with other values in these slots."""
        rows = {name: old.at[slots].set(values[name]) for name, old in self.values.items()}
        return ReplayBuffer(rows)
