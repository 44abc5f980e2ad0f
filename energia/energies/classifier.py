"""A classifier as a joint energy of datum and class."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import equinox as eqx
import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from energia import supports
from energia._types import as_array, as_float, as_shape, is_concrete
from energia.energies._energy import Energy
from energia.energies._factors import Categorical, Factors
from energia.supports import Real, Support


class Classifier(Energy):
    r"""$E(x, y) = -f(x)_y$: the logits of a classifier as a joint energy of datum x and class y.

    Given x it is the classifier, $p(y \mid x) = \operatorname{softmax}(f(x))_y$; given y, as by
    `.condition(y=3)`, a density of data of that class; and `.marginalize("y")` is a density of
    data, with the closed form $-\log \sum_y e^{f(x)_y}$.

    Args:
        logits: $f$, of one datum, with values of shape (num_classes,): an Equinox module, whose
            arrays are trained, or a function.
        shape: of x, a real variable. None: as far as an `in_size` of the module tells it (of
            `eqx.nn.MLP`), else unknown: then `.constrain` says what x and y are, where a sampler
            or an objective needs to know.

    Raises:
        TypeError: when `logits` cannot be called.
        ValueError: when its values are no vector.

    References:
        Grathwohl, Wang, Jacobsen, Duvenaud, Norouzi and Swersky (2020), Your classifier is secretly
        an energy based model and you should treat it like one.

    Example:
        >>> import energia as en, equinox as eqx, jax, jax.numpy as jnp
        >>> joint = en.Classifier(eqx.nn.MLP(2, 3, 16, 1, key=jax.random.key(0)))
        >>> print(joint)
        Classifier(x, y)  [x: real (2,), y: categorical 3 (); 99 parameters]
        >>> x = jnp.array([0.5, -1.0])
        >>> free = joint.marginalize("y")(x)
        >>> bool(jnp.allclose(free, -jax.nn.logsumexp(joint.logits(x))))
        True
    """

    logits: Callable[[jax.Array], jax.Array]
    shape: tuple[int, ...] | None = eqx.field(static=True)

    def __init__(
        self,
        logits: Callable[[jax.Array], jax.Array],
        *,
        shape: int | Sequence[int] | None = None,
    ):
        if not callable(logits):
            raise TypeError(f"logits must be a function of a datum, got {logits!r}")
        in_size = getattr(logits, "in_size", None)
        if shape is None and isinstance(in_size, int):
            shape = (in_size,)
        self.logits = logits
        self.shape = None if shape is None else as_shape(shape)
        if self.shape is not None:
            self._num_classes(self.shape)

    def __call__(self, x: ArrayLike, y: ArrayLike) -> jax.Array:
        logits, y = self._logits(x), as_array(y, "y")
        if y.shape:
            raise ValueError(
                f"{self._formula()} takes one class y, got shape {y.shape}: batches are made with "
                "jax.vmap"
            )
        if is_concrete(y) and not 0 <= int(y) < logits.size:
            raise ValueError(f"y must be a class from 0 to {logits.size - 1}, got {int(y)}")
        return -logits[y.astype(jnp.int32)]

    def _logits(self, x: Any) -> jax.Array:
        values = self.logits(as_float(x, "x"))
        if values.ndim != 1:
            raise ValueError(
                f"logits must give a vector, a number for each class, got shape {values.shape}"
            )
        return values

    def _num_classes(self, shape: tuple[int, ...]) -> int:
        x = jax.ShapeDtypeStruct(shape, as_float(0.0).dtype)
        return eqx.filter_eval_shape(self._logits, x).shape[0]

    def _supports(self) -> Mapping[str, Support | None]:
        if self.shape is None:
            return {"x": None, "y": None}
        return {"x": Real(self.shape), "y": supports.Categorical(self._num_classes(self.shape))}

    def _factorize(self, name: str, values: Mapping[str, Any]) -> Factors | None:
        if name != "y" or "x" not in values:
            return super()._factorize(name, values)
        return Categorical(as_float(0.0), self._logits(values["x"]))
