"""energia: composable energy-based models in JAX.

An energy is a scalar function of named variables; everything else is an operation on energies:
compose them with `+`, `*` and `.condition`, draw from them with `en.sample`, learn them with
`en.fit`.
"""

import importlib
import sys
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

try:
    __version__ = version("energia")
except PackageNotFoundError:  # a source tree that is not installed
    __version__ = "0+unknown"

from energia import objectives, paths, samplers
from energia._cache import cache_compilations
from energia.diagnostics import ConvergenceWarning, Diagnosis
from energia.energies import (
    DBM,
    LKJ,
    RBM,
    AsymmetricLaplace,
    Bernoulli,
    Beta,
    BetaBinomial,
    Binomial,
    Cauchy,
    Chi2,
    Classifier,
    ConvEnergy,
    Convolution,
    Dirichlet,
    Discrete,
    DoubleWell,
    Energy,
    Exponential,
    Funnel,
    Gamma,
    Gaussian,
    GaussianMixture,
    GaussianRBM,
    Geometric,
    Gumbel,
    HalfCauchy,
    HalfNormal,
    Hopfield,
    InverseGamma,
    Ising,
    Laplace,
    Logistic,
    LogNormal,
    LogUniform,
    MLPEnergy,
    MultivariateNormal,
    NegativeBinomial,
    NegativeBinomial2,
    NoiseConditional,
    Normal,
    OrderedLogistic,
    Pareto,
    Poisson,
    Potts,
    ResNetEnergy,
    Ring,
    Rosenbrock,
    StudentT,
    TruncatedNormal,
    Uniform,
    VonMises,
    Weibull,
    ZeroInflatedPoisson,
    classifier_free,
    constant,
    energy,
    from_log_density,
    from_score,
    guide,
    mixture,
    total,
)
from energia.paths import Path
from energia.sampling import Draws, Minimum, minimize, sample
from energia.supports import (
    Binary,
    Categorical,
    CholeskyCorrelation,
    Interval,
    Natural,
    Ordered,
    Positive,
    Real,
    Simplex,
    Spin,
    Support,
)
from energia.training import Fit, TrainingWarning, fit, pretrain

if TYPE_CHECKING:
    from energia import data, evaluate, interop, plot, testing

__all__ = [
    "DBM",
    "LKJ",
    "RBM",
    "AsymmetricLaplace",
    "Bernoulli",
    "Beta",
    "BetaBinomial",
    "Binary",
    "Binomial",
    "Categorical",
    "Cauchy",
    "Chi2",
    "CholeskyCorrelation",
    "Classifier",
    "ConvEnergy",
    "ConvergenceWarning",
    "Convolution",
    "Diagnosis",
    "Dirichlet",
    "Discrete",
    "DoubleWell",
    "Draws",
    "Energy",
    "Exponential",
    "Fit",
    "Funnel",
    "Gamma",
    "Gaussian",
    "GaussianMixture",
    "GaussianRBM",
    "Geometric",
    "Gumbel",
    "HalfCauchy",
    "HalfNormal",
    "Hopfield",
    "Interval",
    "InverseGamma",
    "Ising",
    "Laplace",
    "LogNormal",
    "LogUniform",
    "Logistic",
    "MLPEnergy",
    "Minimum",
    "MultivariateNormal",
    "Natural",
    "NegativeBinomial",
    "NegativeBinomial2",
    "NoiseConditional",
    "Normal",
    "Ordered",
    "OrderedLogistic",
    "Pareto",
    "Path",
    "Poisson",
    "Positive",
    "Potts",
    "Real",
    "ResNetEnergy",
    "Ring",
    "Rosenbrock",
    "Simplex",
    "Spin",
    "StudentT",
    "Support",
    "TrainingWarning",
    "TruncatedNormal",
    "Uniform",
    "VonMises",
    "Weibull",
    "ZeroInflatedPoisson",
    "cache_compilations",
    "classifier_free",
    "constant",
    "data",
    "energy",
    "evaluate",
    "fit",
    "from_log_density",
    "from_score",
    "guide",
    "interop",
    "minimize",
    "mixture",
    "objectives",
    "paths",
    "plot",
    "pretrain",
    "sample",
    "samplers",
    "testing",
    "total",
]


_LATER = ("data", "evaluate", "interop", "plot", "testing")  # imported when first asked for


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return importlib.import_module(f"energia.{name}")
    here = sys.modules[__name__]  # from which Python guesses what was meant
    raise AttributeError(f"module 'energia' has no attribute {name!r}", name=name, obj=here)


def __dir__() -> list[str]:
    """What completion shows: the public names."""
    return list(__all__)
