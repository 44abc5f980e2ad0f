"""Rankings, scores of data, calibration and attacks, against closed forms and counting by hand."""

import inspect

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import energia as en

evaluate = en.evaluate


# --- rankings


def test_two_normal_laws_are_told_as_well_as_they_can_be(key):
    """P(s + d > s') = Φ(d / √2), within 5 standard errors of a statistic of pairs."""
    from scipy.stats import norm

    shift, count = 1.2, 20_000
    low, high = np.asarray(jax.random.normal(key, (2, count)), float)
    high += shift
    truth = norm.cdf(shift / np.sqrt(2))
    ranks = norm.cdf(high), norm.cdf(low - shift)
    error = np.sqrt(sum(rank.var() for rank in ranks) / count)
    assert abs(evaluate.auroc(low, high) - truth) < 5 * error
    assert 5 * error < 0.02


@pytest.mark.parametrize("states", [3, 1000])
def test_rankings_count_ties_and_are_scikit_learns(key, states):
    from sklearn.metrics import average_precision_score, roc_auc_score

    scores = np.asarray(jax.random.randint(key, (400,), 0, states))
    low, high = scores[:250], scores[250:] + states // 5
    pairs = (high[:, None] > low) + 0.5 * (high[:, None] == low)
    assert evaluate.auroc(low, high) == pytest.approx(pairs.mean(), abs=1e-12)
    labels, scores = np.arange(400) >= 250, np.concatenate([low, high])
    assert evaluate.auroc(low, high) == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert evaluate.auroc(high, low) == pytest.approx(1 - pairs.mean(), abs=1e-12)
    assert evaluate.auprc(low, high) == pytest.approx(
        average_precision_score(labels, scores), abs=1e-12
    )


def test_rankings_of_the_extremes():
    assert evaluate.auroc([0, 1], [2.5, np.inf]) == evaluate.auprc([0, 1], [2.5, np.inf]) == 1
    assert evaluate.auroc([1, 1, 1], [1]) == 0.5
    assert evaluate.auprc([1, 1, 1], [1]) == 0.25
    for function in (evaluate.auroc, evaluate.auprc):
        with pytest.raises(ValueError, match="outside has 1 scores that are NaN"):
            function([0.0], [np.nan, 1.0])
        with pytest.raises(ValueError, match="inside must be a vector of scores"):
            function(np.zeros((2, 2)), [1.0])
        with pytest.raises(ValueError, match="at least one, got shape"):
            function([1.0], [])


# --- scores of data


class Linear(eqx.Module):
    weights: jax.Array

    def __call__(self, x):
        return self.weights @ x


def linear(key, classes=4, size=3):
    return en.Classifier(Linear(jax.random.normal(key, (classes, size))), shape=size)


def test_scores_of_a_classifier(key):
    joint, x = linear(key), np.asarray(jax.random.normal(key, (300, 3)))
    logits = np.asarray(x, float) @ np.asarray(joint.logits.weights, float).T
    free = -np.log(np.exp(logits).sum(1))
    np.testing.assert_allclose(evaluate.ood_scores(joint, x), free, atol=1e-5)
    p = np.exp(logits + free[:, None])
    slopes = np.linalg.norm(p @ np.asarray(joint.logits.weights, float), axis=1)
    found = evaluate.ood_scores(joint, {"x": x}, method="gradient_norm")
    np.testing.assert_allclose(found, slopes, atol=1e-5)
    odds = np.log((1 - p.max(1)) / p.max(1))
    found = evaluate.ood_scores(joint, x, method="max_probability")
    np.testing.assert_allclose(found, odds, atol=1e-4)


def test_the_most_probable_class_has_no_ties_where_it_is_sure(key):
    sure = en.Classifier(Linear(100 * jnp.eye(2)), shape=2)
    x = np.stack([np.linspace(0.5, 1, 50), np.zeros(50)], 1)
    scores = evaluate.ood_scores(sure, x, method="max_probability")
    np.testing.assert_allclose(scores, -100 * x[:, 0], rtol=1e-5)


def test_likelihood_ratio_is_the_difference_of_energies(key):
    one, two = en.Gaussian(jnp.zeros(2)), en.Gaussian(jnp.ones(2), scale=2.0)
    x = jax.random.normal(key, (10, 2))
    found = evaluate.ood_scores(one, x, method="likelihood_ratio", background=two)
    wanted = jax.vmap(one)(x) - jax.vmap(two)(x)
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_scores_of_several_variables_sum_out_the_rest(key):
    rbm = en.RBM(5, 3, key=key)
    v = np.asarray(jax.random.bernoulli(key, shape=(20, 5)), np.float32)
    wanted = jax.vmap(rbm.marginalize("h"))(v)
    np.testing.assert_allclose(evaluate.ood_scores(rbm, v), wanted, atol=1e-5)
    with pytest.raises(TypeError, match="'gradient_norm' needs a continuous variable"):
        evaluate.ood_scores(rbm, v, method="gradient_norm")


@pytest.mark.parametrize("method", ["energy", "gradient_norm", "max_probability"])
def test_other_weights_and_rows_compile_nothing(key, compilations, method):
    one, two = linear(key), linear(jax.random.fold_in(key, 1))
    x = np.ones((600, 3), np.float32)
    evaluate.ood_scores(one, x, method=method)
    with compilations() as seen:
        first = evaluate.ood_scores(two, x, method=method)
        assert len(evaluate.ood_scores(two, x[:301], method=method)) == 301
    assert seen.count == 0, seen.compiled
    assert len(first) == 600


def test_what_cannot_be_scored_raises(key):
    joint, x = linear(key), np.zeros((4, 3), np.float32)
    score = inspect.unwrap(evaluate.ood_scores)
    with pytest.raises(ValueError, match="method= must be one of"):
        score(joint, x, method="entropy")
    with pytest.raises(ValueError, match="background= is the other energy"):
        score(joint, x, method="likelihood_ratio")
    with pytest.raises(ValueError, match=r"must have shape \(rows, 3\)"):
        score(joint, x[:, :2])
    with pytest.raises(ValueError, match="of which the probabilities are asked"):
        score(joint, {"x": x, "y": [0] * 4}, method="max_probability")
    with pytest.raises(ValueError, match="has no classes 'x'"):
        score(joint.rename(y="z"), {"z": [0] * 4}, method="max_probability", label="x")
    with pytest.raises(TypeError, match="takes an energy"):
        score(len, x)
    with pytest.raises(ValueError, match="2 scores are NaN, the first is that of row 1"):
        score(en.energy(lambda x: jnp.log(x)), np.array([1.0, -1.0, -2.0]))


# --- calibration


def test_calibration_by_hand():
    p = np.array([0.55, 0.6, 0.7, 0.95, 1.0, 0.9])
    y = np.array([0, 1, 0, 0, 0, 1])
    found = evaluate.calibration_error(np.stack([p, 1 - p], 1), y, num_bins=10)
    # (.5, .6]: .55, .6, one of two right; (.6, .7]: right; (.8, .9]: wrong; (.9, 1]: both right
    assert found.bin_count.tolist() == [0, 0, 0, 0, 0, 2, 1, 0, 1, 2]
    gaps = [abs(0.5 - 0.575) * 2, abs(1 - 0.7), abs(0 - 0.9), abs(1 - 0.975) * 2]
    assert float(found) == found.value == pytest.approx(sum(gaps) / 6)
    np.testing.assert_allclose(found.bin_accuracy[[5, 6, 8, 9]], [0.5, 1, 0, 1])
    np.testing.assert_allclose(found.bin_confidence[[5, 6, 8, 9]], [0.575, 0.7, 0.9, 0.975])
    assert np.isnan(found.bin_accuracy[:5]).all()
    assert found.accuracy == pytest.approx(4 / 6)
    assert found.confidence == pytest.approx(p.mean())


def test_labels_drawn_from_the_probabilities_are_calibrated(key):
    """And the same labels are not by sharpened ones."""
    joint, count = linear(key), 20_000
    x = np.asarray(jax.random.normal(key, (count, 3)))
    draw = jax.jit(lambda x, key: jax.random.categorical(key, x @ joint.logits.weights.T))
    data = {"x": x, "y": np.asarray(draw(x, key))}
    found = evaluate.calibration_error(joint, data)
    spread = 0.5 / np.sqrt(np.maximum(found.bin_count, 1))
    assert found.value < np.sum(found.bin_count / count * spread) * 2
    sharp = en.Classifier(Linear(3 * joint.logits.weights), shape=3)
    sharpened = evaluate.calibration_error(sharp, data)
    assert sharpened.value > 0.1
    assert sharpened.accuracy == found.accuracy
    logits = x.astype(float) @ np.asarray(joint.logits.weights, float).T
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert evaluate.calibration_error(p, data["y"]).value == pytest.approx(found.value, abs=1e-3)


def test_classes_may_be_binary_and_energies_plain(key):
    @en.energy(y=en.Binary())
    def odds(x, y):
        return -x * y

    x = np.array([-1.0, 2.0], np.float32)
    found = evaluate.calibration_error(odds, {"x": x, "y": [0.0, 1.0]}, num_bins=1)
    assert found.accuracy == 1
    assert found.confidence == pytest.approx(np.mean(1 / (1 + np.exp(-np.abs(x)))), abs=1e-6)


def test_what_is_no_classifier_raises(key):
    joint = linear(key)
    half = np.full((3, 2), 0.5)
    with pytest.raises(ValueError, match="those of a row must sum to 1"):
        evaluate.calibration_error(2 * half, [0, 1, 0])
    with pytest.raises(ValueError, match="labels must be 3 integers"):
        evaluate.calibration_error(half, [0, 1])
    with pytest.raises(ValueError, match="classes from 0 to 1, got 0 to 2"):
        evaluate.calibration_error(half, [0, 1, 2])
    with pytest.raises(TypeError, match="takes a dict of data"):
        evaluate.calibration_error(joint, np.zeros((3, 3)))
    with pytest.raises(ValueError, match="data needs the labels 'y'"):
        evaluate.calibration_error(joint, {"x": np.zeros((3, 3))})
    with pytest.raises(ValueError, match="label='z' is none of the variables"):
        evaluate.calibration_error(joint, {"x": np.zeros((3, 3))}, label="z")
    with pytest.raises(ValueError, match="classes from 0 to 3"):
        evaluate.calibration_error(
            en.Classifier(joint.logits), {"x": np.zeros((3, 3)), "y": [0, 1, 4]}
        )


# --- attacks


def agree(accuracy, worst):
    """Whether rows with a positive lead are those that were kept, but where rounding decides."""
    return abs(accuracy - np.mean(worst > 0)) <= np.mean(np.abs(worst) < 1e-5) + 1e-9


@pytest.mark.parametrize(("norm", "dual"), [("linf", 1), ("l2", 2)])
def test_attacks_on_a_linear_classifier_find_the_worst_case(key, compilations, norm, dual):
    """Two classes: the least lead in the ball is the lead minus r times the dual norm."""
    keys = jax.random.split(key, 3)
    weights = np.asarray(jax.random.normal(keys[0], (2, 6)), float)
    x = np.asarray(jax.random.normal(keys[1], (500, 6)))
    y = np.asarray(jax.random.randint(keys[2], (500,), 0, 2))
    joint = en.Classifier(Linear(jnp.asarray(weights, jnp.float32)), shape=6)
    slope = weights[y] - weights[1 - y]
    lead = np.sum(slope * x, 1)
    accuracies = []

    def attacked(radius, key):
        step = radius  # so large that the ball's edge is met from any start
        return evaluate.adversarial_accuracy(
            joint,
            {"x": x, "y": y},
            radius=radius,
            step_size=step,
            bounds=None,
            norm=norm,
            key=key,
        )

    assert attacked(0.0, key) == pytest.approx(np.mean(lead > 0))
    with compilations() as seen:
        for radius in (0.1, 0.5):
            worst = lead - radius * np.linalg.norm(slope, dual, axis=1)
            accuracies.append(attacked(radius, key))
            assert agree(accuracies[-1], worst)
    assert seen.count == 0, seen.compiled
    assert 0 < accuracies[1] < accuracies[0] < np.mean(lead > 0)


def test_attacks_stay_within_the_bounds(key):
    """In a box the worst case is taken entry by entry."""
    weights = jax.random.normal(key, (2, 6))
    x = np.asarray(jax.random.uniform(key, (500, 6)))
    y = np.asarray(jax.random.randint(key, (500,), 0, 2))
    slope = np.asarray(weights[y] - weights[1 - y], float)
    low, high = np.maximum(x - 0.3, 0), np.minimum(x + 0.3, 1)
    worst = np.minimum(slope * low, slope * high).sum(1)
    joint = en.Classifier(Linear(weights), shape=6)
    data = {"x": x, "y": y}
    found = evaluate.adversarial_accuracy(joint, data, radius=0.3, bounds=(0, 1), key=key)
    assert agree(found, worst)
    free = evaluate.adversarial_accuracy(joint, data, radius=0.3, bounds=None, key=key)
    assert free < found


def test_an_attack_goes_on_where_the_classifier_is_sure(key):
    """The cross-entropy's gradient rounds to 0 there, the lead's does not."""
    joint = en.Classifier(Linear(jnp.array([[1e4, 0.0], [0.0, 1e4]])), shape=2)
    data = {"x": np.array([[1.0, 0.9]]), "y": [0]}
    lost = evaluate.adversarial_accuracy(joint, data, radius=0.06, bounds=None, key=key)
    kept = evaluate.adversarial_accuracy(joint, data, radius=0.04, bounds=None, key=key)
    assert (lost, kept) == (0, 1)


def test_starts_of_an_attack_are_uniform_in_the_ball(key):
    """A classifier that tells only points beyond some length: with no step, starts decide."""
    for norm, share in (("l2", 1 - 0.8**3), ("linf", 1 - 0.8**3)):
        order = 2 if norm == "l2" else np.inf

        def logits(x, order=order):
            return jnp.stack([0.8 - jnp.linalg.norm(x, order), 0.0])

        joint = en.Classifier(logits, shape=3)
        data = {"x": np.full((4000, 3), 1e-6), "y": np.zeros(4000, int)}
        kept = evaluate.adversarial_accuracy(
            joint, data, radius=1.0, step_size=0.0, num_steps=1, bounds=None, norm=norm, key=key
        )
        assert abs(1 - kept - share) < 5 * np.sqrt(share * (1 - share) / 4000)


def test_more_restarts_lose_no_fewer_rows(key):
    joint = en.Classifier(eqx.nn.MLP(2, 3, 16, 1, key=key))
    data = {k: np.asarray(v) for k, v in en.data.pinwheel(300, key=key).items()}
    data["y"] = data["y"] % 3
    once, often = (
        evaluate.adversarial_accuracy(
            joint, data, radius=0.5, num_steps=3, num_restarts=n, bounds=None, key=key
        )
        for n in (1, 8)
    )
    assert often <= once


def test_what_cannot_be_attacked_raises(key):
    joint = linear(key)
    data = {"x": np.zeros((4, 3), np.float32), "y": np.zeros(4, int)}
    attack = inspect.unwrap(evaluate.adversarial_accuracy)
    with pytest.raises(ValueError, match="norm= must be one of"):
        attack(joint, data, radius=0.1, bounds=None, norm="l1", key=key)
    with pytest.raises(ValueError, match="radius= must be a finite number, at least 0"):
        attack(joint, data, radius=-0.1, bounds=None, key=key)
    with pytest.raises(ValueError, match="bounds= are 1 to 2, and the data go from 0 to 0"):
        attack(joint, data, radius=0.1, bounds=(1, 2), key=key)
    with pytest.raises(ValueError, match="low below high"):
        attack(joint, data, radius=0.1, bounds=(1, 0), key=key)
    with pytest.raises(TypeError, match="data must be a dict"):
        attack(joint, data["x"], radius=0.1, bounds=None, key=key)
    with pytest.raises(ValueError, match="data needs the labels 'y'"):
        attack(joint, {"x": data["x"]}, radius=0.1, bounds=None, key=key)
    with pytest.raises(ValueError, match="the energy is NaN at row 0"):
        attack(
            en.Classifier(Linear(jnp.full((2, 3), jnp.nan)), shape=3),
            data,
            radius=0.1,
            bounds=None,
            key=key,
        )
