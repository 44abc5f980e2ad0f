"""The one file that calls ArviZ: its labelled data, and its numbers for one quantity.

ArviZ is imported where it is called, since that takes about a second.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

STANDING = 1e6  # an R-hat, or NaN: chains that each stand still, apart, but for rounding


def to_arviz(
    positions: Mapping[str, np.ndarray],
    stats: Mapping[str, np.ndarray],
    groups: Mapping[str, Mapping[str, np.ndarray]] | None = None,
) -> Any:
    """An xarray DataTree with the groups posterior, sample_stats, and what else there is."""
    import arviz_base

    from energia import __version__

    data = {"posterior": positions, "sample_stats": stats, **(groups or {})}
    attributes = {"inference_library": "energia", "inference_library_version": __version__}
    return arviz_base.from_dict(
        {group: dict(arrays) for group, arrays in data.items()},
        attrs=dict.fromkeys(data, attributes),
        check_conventions=False,  # which warn where there are more chains than draws
    )


def rhat(draws: np.ndarray) -> float:
    """The larger of the split R-hats of ranks and of folded ranks; `draws` is (chain, draw)."""
    value = float(_call("rhat", draws, method="rank"))
    return value if value < STANDING else np.inf


def ess(draws: np.ndarray) -> float:
    """The smaller of bulk and tail effective sample sizes."""
    bulk = float(_call("ess", draws, method="bulk"))
    tail = float(_call("ess", draws, method="tail", prob=(0.05, 0.95)))
    return min(bulk, tail if np.isfinite(tail) else bulk)


def mean_ess(draws: np.ndarray) -> float:
    """The effective sample size for the mean."""
    return float(_call("ess", draws, method="mean"))


def bfmi(energy: np.ndarray) -> float | None:
    """The smallest E-BFMI of a chain whose energies are finite and vary; None where none is."""
    values = _call("bfmi", energy.astype(np.float64))
    values = values[np.isfinite(values)]
    return float(np.min(values)) if values.size else None


def summary_table(tree: Any, **kwargs: Any) -> Any:
    """The table of `arviz_stats.summary`."""
    import arviz_stats

    return arviz_stats.summary(tree, **kwargs)  # pyright: ignore[reportPrivateImportUsage]


def loo(
    positions: Mapping[str, np.ndarray], name: str, log_likelihood: np.ndarray, **kwargs: Any
) -> Any:
    """PSIS-LOO of one log-likelihood, shape (chain, draw, row), by `arviz_stats.loo`."""
    import arviz_stats

    tree = to_arviz(positions, {}, {"log_likelihood": {name: log_likelihood}})
    return arviz_stats.loo(tree, **{"pointwise": True, **kwargs})  # pyright: ignore


def _call(name: str, draws: np.ndarray, **options: Any) -> Any:
    from arviz_stats.base.array import array_stats

    with np.errstate(all="ignore"):
        return getattr(array_stats, name)(draws, chain_axis=0, draw_axis=1, **options)


def pareto_k(log_weights: np.ndarray) -> float:
    """The shape of a Pareto distribution fitted to the largest weights; shape (draw,)."""
    from arviz_stats.base.array import array_stats

    with np.errstate(all="ignore"):
        # it takes log-likelihoods, and weights by their reciprocals
        return float(array_stats.psislw(-log_weights)[1])
