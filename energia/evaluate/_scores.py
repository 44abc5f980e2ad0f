"""Scores of data by how unlikely a model finds them."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from energia._types import Values
from energia.energies._energy import Energy
from energia.evaluate import _classes
from energia.evaluate._rows import over_rows, rows_of

METHODS = ("energy", "gradient_norm", "likelihood_ratio", "max_probability")


def ood_scores(
    energy: Energy,
    data: Any,
    *,
    method: str = "energy",
    background: Energy | None = None,
    label: str = "y",
) -> np.ndarray:
    r"""Scores of data, the higher, the more out of the distribution of a model.

    With the free energy $F(x)$, the energy with everything summed out that is no datum (of a
    classifier the classes):

    - 'energy': $F(x) = -\log p(x) - \log Z$;
    - 'gradient_norm': $\lVert \nabla F(x) \rVert$ over the continuous variables. Typical data lie
      where the density is flat; a point in a thin peak has a high density, and a large gradient;
    - 'likelihood_ratio': $F(x) - F_b(x)$, with $F_b$ of `background`, a model of what all such data
      share: trained with noise added, say, or on broader data;
    - 'max_probability': $\log \tfrac{1 - p}{p}$ with $p = \max_y p(y \mid x)$: what the classifier
      alone tells, in the order of $1 - p$, with no ties where $p$ rounds to 1.

    Args:
        energy: what is to be judged.
        data: an array with a leading axis over rows, values of the energy's first variable, or a
            dict of them by variable name. Variables that it lacks are summed out.
        method: which score, see above.
        background: the other model of 'likelihood_ratio', with the data's variables.
        label: the classes of 'max_probability'.

    Returns:
        A number a row, shape (rows,). `auroc(ood_scores(E, x), ood_scores(E, other))` says how well
        they tell other data.

    Raises:
        TypeError, ValueError: for data that do not fit, variables that cannot be summed out, what
            the method lacks, and scores that are NaN.

    References:
        Grathwohl, Wang, Jacobsen, Duvenaud, Norouzi and Swersky (2020), Your classifier is secretly
        an energy based model and you should treat it like one ('energy', 'gradient_norm'). Liu,
        Wang, Owens and Li (2020), Energy-based out-of-distribution detection. Ren, Liu, Fertig,
        Snoek, Poplin, DePristo, Dillon and Lakshminarayanan (2019), Likelihood ratios for
        out-of-distribution detection. Hendrycks and Gimpel (2017), A baseline for detecting
        misclassified and out-of-distribution examples in neural networks.

    Example:
        >>> import energia as en, jax.numpy as jnp
        >>> x = jnp.array([[0.0, 0.0], [3.0, 4.0]])
        >>> en.evaluate.ood_scores(en.Gaussian(jnp.zeros(2)), x).tolist()
        [1.83..., 14.33...]
        >>> en.evaluate.ood_scores(en.Gaussian(jnp.zeros(2)), x, method="gradient_norm").tolist()
        [0.0, 5.0]
    """
    if not isinstance(energy, Energy):
        raise TypeError(f"ood_scores() takes an energy, got {energy!r}")
    if method not in METHODS:
        raise ValueError(f"method= must be one of {METHODS}, got {method!r}")
    if (background is not None) != (method == "likelihood_ratio"):
        raise ValueError(
            f"background= is the other energy of 'likelihood_ratio', got {background!r} with "
            f"method={method!r}"
        )
    rows = rows_of(energy, data, unknown=True)
    if method == "max_probability":
        _classes.check_label(energy, rows, label, given=False)
        return _finished(over_rows(_odds, (energy, label), rows))
    free = without_latents(energy, rows)
    if method == "gradient_norm":
        moving = _continuous(free, rows)
        return _finished(over_rows(_gradient_norm, (free, moving), rows))
    scores = _finished(over_rows(_energy, free, rows))
    if background is None:
        return scores
    if not isinstance(background, Energy):
        raise TypeError(f"background= must be an energy, got {background!r}")
    rows = rows_of(background, rows, unknown=True)
    other = over_rows(_energy, without_latents(background, rows), rows)
    return scores - _finished(other)


def without_latents(energy: Energy, rows: Values) -> Energy:
    """The energy with everything summed out that is no datum."""
    latent = tuple(name for name in energy.variables if name not in rows)
    return energy.marginalize(*latent) if latent else energy


def _continuous(energy: Energy, rows: Values) -> tuple[str, ...]:
    """The variables that a gradient can be taken by."""
    supports = energy.supports
    names = tuple(
        name
        for name, array in rows.items()
        if jnp.issubdtype(array.dtype, jnp.floating)
        and ((support := supports[name]) is None or not support.discrete)
    )
    if not names:
        raise TypeError(
            f"'gradient_norm' needs a continuous variable, and {energy._formula()} has none here"
        )
    return names


def _finished(scores: np.ndarray) -> np.ndarray:
    if (broken := np.isnan(scores)).any():
        first = int(np.flatnonzero(broken)[0])
        raise ValueError(
            f"{int(broken.sum())} scores are NaN, the first is that of row {first}: the energy has "
            "no value there"
        )
    return scores


def _energy(free: Energy, row: Values) -> jax.Array:
    return free._scalar_at(row)


def _gradient_norm(model: tuple[Energy, tuple[str, ...]], row: Values) -> jax.Array:
    free, names = model
    moving = {name: row[name] for name in names}
    gradient = jax.grad(lambda moving: free._scalar_at({**row, **moving}))(moving)
    return jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in gradient.values()))


def _odds(model: tuple[Energy, str], row: Values) -> jax.Array:
    values = _classes.logits(model[0], row, model[1])
    best = jnp.argmax(values)
    others = jnp.where(jnp.arange(values.size) == best, -jnp.inf, values)
    return jax.nn.logsumexp(others) - values[best]
