"""Draws as ArviZ's labelled data."""

from collections.abc import Mapping
from typing import Any

import numpy as np


def to_arviz(positions: Mapping[str, np.ndarray], stats: Mapping[str, np.ndarray]) -> Any:
    """An xarray DataTree with the groups posterior and sample_stats."""
    import arviz_base

    from energia import __version__

    attributes = {"inference_library": "energia", "inference_library_version": __version__}
    return arviz_base.from_dict(
        {"posterior": dict(positions), "sample_stats": dict(stats)},
        attrs={"posterior": attributes, "sample_stats": attributes},
        check_conventions=False,  # which warn where there are more chains than draws
    )
