"""Energies and their algebra. Every name here stands in `energia` itself."""

from energia.energies._algebra import mixture
from energia.energies._convolution import Convolution
from energia.energies._energy import Energy
from energia.energies._function import energy, from_log_density
from energia.energies._score import from_score
from energia.energies._total import total
from energia.energies._trainable import constant
from energia.energies.analytic import DoubleWell, Funnel, Ring, Rosenbrock
from energia.energies.boltzmann import RBM
from energia.energies.classifier import Classifier
from energia.energies.convolutional import ConvEnergy, ResNetEnergy
from energia.energies.dbm import DBM
from energia.energies.distributions import (
    LKJ,
    AsymmetricLaplace,
    Bernoulli,
    Beta,
    BetaBinomial,
    Binomial,
    Cauchy,
    Chi2,
    Dirichlet,
    Discrete,
    Exponential,
    Gamma,
    Geometric,
    Gumbel,
    HalfCauchy,
    HalfNormal,
    InverseGamma,
    Laplace,
    Logistic,
    LogNormal,
    LogUniform,
    MultivariateNormal,
    NegativeBinomial,
    NegativeBinomial2,
    Normal,
    OrderedLogistic,
    Pareto,
    Poisson,
    StudentT,
    TruncatedNormal,
    Uniform,
    VonMises,
    Weibull,
    ZeroInflatedPoisson,
)
from energia.energies.gaussian import Gaussian, GaussianMixture
from energia.energies.gaussian_rbm import GaussianRBM
from energia.energies.guidance import classifier_free, guide
from energia.energies.hopfield import Hopfield
from energia.energies.ising import Ising, Potts
from energia.energies.neural import MLPEnergy
from energia.energies.noise_conditional import NoiseConditional

__all__ = [
    "DBM",
    "LKJ",
    "RBM",
    "AsymmetricLaplace",
    "Bernoulli",
    "Beta",
    "BetaBinomial",
    "Binomial",
    "Cauchy",
    "Chi2",
    "Classifier",
    "ConvEnergy",
    "Convolution",
    "Dirichlet",
    "Discrete",
    "DoubleWell",
    "Energy",
    "Exponential",
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
    "InverseGamma",
    "Ising",
    "Laplace",
    "LogNormal",
    "LogUniform",
    "Logistic",
    "MLPEnergy",
    "MultivariateNormal",
    "NegativeBinomial",
    "NegativeBinomial2",
    "NoiseConditional",
    "Normal",
    "OrderedLogistic",
    "Pareto",
    "Poisson",
    "Potts",
    "ResNetEnergy",
    "Ring",
    "Rosenbrock",
    "StudentT",
    "TruncatedNormal",
    "Uniform",
    "VonMises",
    "Weibull",
    "ZeroInflatedPoisson",
    "classifier_free",
    "constant",
    "energy",
    "from_log_density",
    "from_score",
    "guide",
    "mixture",
    "total",
]
