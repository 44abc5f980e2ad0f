"""The restricted Boltzmann machine as a scikit-learn estimator."""

import math
from numbers import Integral, Real
from typing import Any, ClassVar

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from energia.energies import RBM
from energia.energies._trainable import split
from energia.objectives import PCD

try:
    from scipy.special import expit
    from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
    from sklearn.utils import check_random_state
    from sklearn.utils._param_validation import Interval
    from sklearn.utils.extmath import safe_sparse_dot
    from sklearn.utils.validation import check_is_fitted, validate_data
except ImportError as error:
    raise ImportError("BernoulliRBM needs scikit-learn: pip install scikit-learn") from error

KINDS = (np.float64, np.float32)


class BernoulliRBM(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):
    r"""`en.RBM` as scikit-learn's `BernoulliRBM`: the same arguments, methods and attributes.

    It learns by the same updates, persistent contrastive divergence of one step, in one compiled
    loop. Between 0 and 1 a value is taken for the probability of a 1, as there. What differs:
    `score_samples` is the whole pseudo-likelihood and not an estimate from one unit a row, so that
    it is the same each time; `partial_fit` of more rows than `batch_size` makes several updates;
    a last batch that is short is filled with rows before it, where theirs sets the sum over fewer
    rows against that over all chains; and `energy_` is the machine, for all else that one can do
    with an energy: `en.evaluate.log_likelihood(estimator.energy_, X)` is the likelihood itself.

    Args:
        n_components: hidden units, at least 1.
        learning_rate: step size of the updates, positive.
        batch_size: rows of an update, and persistent chains, at least 1.
        n_iter: sweeps over the data, at least 0.
        verbose: whether to print the pseudo-likelihood after each sweep.
        random_state: as everywhere in scikit-learn.

    Attributes:
        components_: the weights, shape (n_components, n_features).
        intercept_hidden_: biases of the hidden units.
        intercept_visible_: biases of the visible units.
        h_samples_: hidden units of the persistent chains, shape (batch_size, n_components).
        energy_: the machine as an energy.

    References:
        Tieleman (2008), Training restricted Boltzmann machines using approximations to the
        likelihood gradient.

    Example:
        >>> import energia as en, numpy as np
        >>> X = np.array([[0, 0, 0], [0, 1, 1], [1, 0, 1], [1, 1, 1]])
        >>> model = en.interop.BernoulliRBM(n_components=2, random_state=0).fit(X)
        >>> model.transform(X).shape
        (4, 2)
        >>> result = en.evaluate.log_likelihood(model.energy_, X)
        >>> result.log_partition.method
        'exact'
    """

    _parameter_constraints: ClassVar[dict[str, Any]] = {
        "n_components": [Interval(Integral, 1, None, closed="left")],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "batch_size": [Interval(Integral, 1, None, closed="left")],
        "n_iter": [Interval(Integral, 0, None, closed="left")],
        "verbose": ["verbose"],
        "random_state": ["random_state"],
    }

    def __init__(
        self,
        n_components: Any = 256,  # scikit-learn has arguments checked by fit, not here
        *,
        learning_rate: Any = 0.1,
        batch_size: Any = 10,
        n_iter: Any = 10,
        verbose: Any = 0,
        random_state: Any = None,
    ):
        self.n_components = n_components
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.n_iter = n_iter
        self.verbose = verbose
        self.random_state = random_state

    def fit(self, X: Any, y: Any = None) -> "BernoulliRBM":
        """Learn from rows of units, an array or a sparse matrix of shape (rows, n_features)."""
        self._validate_params()
        rows = validate_data(self, X, accept_sparse="csr", dtype=KINDS)
        self.random_state_ = check_random_state(self.random_state)
        self._begin(rows)
        sweeps = [1] * self.n_iter if self.verbose else [self.n_iter]
        for number, count in enumerate(sweeps, 1):
            self._learn(rows, count)
            if self.verbose:
                mean = self.score_samples(X).mean()
                print(f"[{type(self).__name__}] Iteration {number}, pseudo-likelihood = {mean:.2f}")
        return self

    def partial_fit(self, X: Any, y: Any = None) -> "BernoulliRBM":
        """One sweep over rows, from where learning stands; the chains go on too."""
        self._validate_params()
        first = not hasattr(self, "components_")
        rows = validate_data(self, X, accept_sparse="csr", dtype=KINDS, reset=first)
        if first:
            self.random_state_ = check_random_state(self.random_state)
            self._begin(rows)
        self._learn(rows, 1)
        return self

    def transform(self, X: Any) -> np.ndarray:
        """The probabilities P(h = 1 | v = X), shape (rows, n_components)."""
        check_is_fitted(self)
        return self._mean_hidden(
            validate_data(self, X, accept_sparse="csr", reset=False, dtype=KINDS)
        )

    def score_samples(self, X: Any) -> np.ndarray:
        r"""The pseudo-likelihood of rows, $\sum_i \log p(v_i \mid v_{j \ne i})$, shape (rows,)."""
        check_is_fitted(self)
        rows: Any = validate_data(self, X, accept_sparse="csr", reset=False, dtype=KINDS)
        return np.asarray(_pseudo_likelihood(self.energy_, _dense(rows))).astype(rows.dtype)

    def gibbs(self, v: Any) -> np.ndarray:
        """One step of Gibbs sampling from rows of visible units: h given v, then v given h."""
        check_is_fitted(self)
        hidden = self._mean_hidden(v)
        hidden = self.random_state_.uniform(size=hidden.shape) < hidden
        visible = expit(hidden @ self.components_ + self.intercept_visible_)
        return self.random_state_.uniform(size=visible.shape) < visible

    @property
    def energy_(self) -> RBM:
        """The machine as an energy over v and h."""
        check_is_fitted(self)
        return RBM.from_parameters(
            self.components_.T, self.intercept_visible_, self.intercept_hidden_
        )

    def _mean_hidden(self, v: Any) -> np.ndarray:
        return expit(safe_sparse_dot(v, self.components_.T) + self.intercept_hidden_)

    def _begin(self, rows: Any) -> None:
        shape, kind = (self.n_components, rows.shape[1]), rows.dtype
        self.components_ = self.random_state_.normal(0, 0.01, shape).astype(kind)
        self._n_features_out = self.n_components
        self.intercept_hidden_ = np.zeros(shape[0], kind)
        self.intercept_visible_ = np.zeros(shape[1], kind)
        self.h_samples_ = np.zeros((self.batch_size, shape[0]), kind)

    def _learn(self, rows: Any, sweeps: int) -> None:
        size = min(self.batch_size, rows.shape[0])
        steps = sweeps * math.ceil(rows.shape[0] / size)
        objective = PCD(num_steps=1, buffer_size=len(self.h_samples_), reinit_prob=0.0)
        seed = self.random_state_.randint(2**31 - 1)
        rbm, chains = _train(
            objective,
            self.energy_,
            jnp.asarray(self.h_samples_, jnp.float32),
            _dense(rows),
            jax.random.key(seed),
            np.float32(self.learning_rate),
            np.int32(steps),
            size,
        )
        kind = self.components_.dtype
        self.components_ = np.asarray(rbm.weights.T, kind)
        self.intercept_hidden_ = np.asarray(rbm.hidden_bias, kind)
        self.intercept_visible_ = np.asarray(rbm.visible_bias, kind)
        self.h_samples_ = np.asarray(chains, kind)

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.input_tags.sparse = True
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags


def _dense(rows: Any) -> jax.Array:
    return jnp.asarray(rows.toarray() if hasattr(rows, "toarray") else rows, jnp.float32)


@eqx.filter_jit
def _train(
    objective: PCD,
    rbm: RBM,
    hidden: jax.Array,
    rows: jax.Array,
    key: jax.Array,
    learning_rate: Any,
    steps: Any,
    size: int,
) -> tuple[RBM, jax.Array]:
    """Updates by plain gradient steps, batch after batch; `fit` would refuse fractions for units.

    The chains are the hidden units: a step draws the visible ones first.
    """
    parameters, skeleton = split(rbm)
    count, last = math.ceil(len(rows) / size), len(rows) - size
    state = objective.init(rbm, {"v": rows}, key)[1]
    state = eqx.tree_at(lambda state: state.buffer.values["h"], state, hidden)

    def step(t: jax.Array, carry: Any) -> Any:
        parameters, state = carry
        begin = jnp.minimum(t % count * size, last)
        batch = {"v": jax.lax.dynamic_slice_in_dim(rows, begin, size)}

        def loss(parameters: Any) -> Any:
            step_key = jax.random.fold_in(key, t)
            return objective.loss(skeleton.merge(parameters), None, batch, state, step_key)[:2]

        slopes, state = jax.grad(loss, has_aux=True)(parameters)
        return [x - learning_rate * g for x, g in zip(parameters, slopes, strict=True)], state

    parameters, state = jax.lax.fori_loop(0, steps, step, (parameters, state))
    return skeleton.merge(parameters), state.buffer.values["h"]


@eqx.filter_jit
def _pseudo_likelihood(rbm: RBM, rows: jax.Array) -> jax.Array:
    def one(v: jax.Array) -> jax.Array:
        field, change = rbm.hidden_bias + v @ rbm.weights, 1 - 2 * v
        moved = jax.nn.softplus(field + change[:, None] * rbm.weights).sum(-1)
        rise = jax.nn.softplus(field).sum() - moved - change * rbm.visible_bias
        return jnp.sum(jax.nn.log_sigmoid(rise))

    return jax.lax.map(one, rows)
