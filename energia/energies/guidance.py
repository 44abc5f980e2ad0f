"""Guidance: a density of data bent towards a condition."""

from typing import Any

from energia.energies._checks import check_known, real_scalar
from energia.energies._energy import Energy


def guide(prior: Energy, classifier: Energy, /, *, scale: Any = 1.0, **given: Any) -> Energy:
    r"""Classifier guidance, $E(x) - s \log p(y \mid x)$: a prior bent towards a condition.

    With $E_c(x, y)$ the classifier as a joint energy,
    $-\log p(y \mid x) = E_c(x, y) + \log \sum_{y'} e^{-E_c(x, y')}$, so that

    `prior + scale * (classifier - classifier.marginalize("y")).condition(y=3)`

    is what this returns for `y=3`. At $s = 1$ it is Bayes' rule, and exact; a larger scale
    sharpens the classifier, $p(x)\,p(y \mid x)^s$, which trades diversity for certainty. Other
    variables join by name: of a noise-conditional prior and classifier, $E(x, \sigma)$ and
    $E_c(x, y, \sigma)$, the result is $E(x, \sigma)$ for a path of levels. It is the density of
    noised data of a class at every level where $s = 1$, and at none but the lowest else.

    Args:
        prior: $E$, an energy without the variables that are given.
        classifier: $E_c$, such as `en.Classifier`, with variables that can be summed out.
        scale: $s$, a number; 0 leaves the prior alone, and below 0 the condition repels.
        **given: values of variables of the classifier, at least one.

    Raises:
        TypeError: when what is given is no energy, or no value is given.
        ValueError: when a name is no variable of the classifier, or is one of the prior too, when
            no other is in both, and where the variables cannot be summed out.

    References:
        Dhariwal and Nichol (2021), Diffusion models beat GANs on image synthesis. Du et al. (2023),
        Reduce, reuse, recycle: compositional generation with energy-based diffusion models and
        MCMC.

    Example:
        >>> import energia as en, jax.numpy as jnp
        >>> sides = en.Classifier(lambda x: jnp.array([-4.0, 4.0]) * x[0], shape=2)
        >>> right = en.guide(en.Gaussian(jnp.zeros(2)), sides, y=1, scale=2.0)
        >>> right.variables
        ('x',)
        >>> bool(right(jnp.array([1.0, 0.0])) < right(jnp.array([-1.0, 0.0])))
        True
    """
    for role, energy in {"a prior": prior, "a classifier": classifier}.items():
        if not isinstance(energy, Energy):
            raise TypeError(f"guide() takes {role} that is an energy, got {energy!r}")
    if not given:
        raise TypeError("guide() needs what is wanted of the classifier, guide(..., y=3)")
    check_known(classifier, given, "guide")
    if double := [name for name in given if name in prior.variables]:
        raise ValueError(
            f"guide({double[0]}=...): {prior._formula()} has the variable {double[0]!r} itself, so "
            f"it needs no classifier for it: .condition({double[0]}=...), or .marginalize it"
        )
    rest = [name for name in classifier.variables if name not in given]
    if not any(name in prior.variables for name in rest):
        raise ValueError(
            f"guide(): {prior._formula()} and {classifier._formula()} have no variable in common "
            f"beside {list(given)}, so that nothing would be guided: .rename the variable of one"
        )
    free = classifier
    for name in given:
        free = free.marginalize(name)
    return prior + real_scalar(scale, "scale=") * (classifier.condition(**given) - free)


def classifier_free(conditional: Energy, unconditional: Energy, /, *, scale: Any = 1.0) -> Energy:
    r"""Classifier-free guidance, $(1 + s)\, E(x \mid y) - s\, E(x)$.

    The classifier that a conditional and an unconditional density imply by Bayes' rule,
    $p(y \mid x) \propto p(x \mid y) / p(x)$, takes the place of `guide`'s: what is drawn follows
    $p(x \mid y)\,p(y \mid x)^s$. At $s = 0$ it is the conditional density.

    One network serves as both: trained with a label that stands for none, dropped in at random,
    `en.classifier_free(E, E.condition(y=none), scale=2.0)`; or with the label summed out,
    `E.marginalize("y")`, where $E(x, y)$ is a joint energy. Energies learned by their scores
    alone have a constant of their own for each label, which does not matter once y is fixed.

    Args:
        conditional: $E(x \mid y)$, an energy over x and y, or conditioned already.
        unconditional: $E(x)$, an energy of variables that the conditional has too.
        scale: $s$, a number; at -1 the unconditional density is left, and below it the condition
            repels.

    Raises:
        TypeError: when what is given is no energy.
        ValueError: when the unconditional energy has a variable that the conditional has not, or
            supports clash.

    References:
        Ho and Salimans (2022), Classifier-free diffusion guidance (their weight $w$ is $s$ here).

    Example:
        >>> import energia as en, jax.numpy as jnp
        >>> one, both = en.Gaussian(1.0), en.mixture([en.Gaussian(-1.0), en.Gaussian(1.0)])
        >>> strong = en.classifier_free(one, both, scale=2.0)
        >>> bool(strong(-1.0) - strong(1.0) > one(-1.0) - one(1.0))
        True
    """
    for role, energy in {"conditional": conditional, "unconditional": unconditional}.items():
        if not isinstance(energy, Energy):
            raise TypeError(f"classifier_free() takes energies, got {energy!r} as the {role} one")
    if more := [name for name in unconditional.variables if name not in conditional.variables]:
        raise ValueError(
            f"classifier_free(): the conditional energy {conditional._formula()} lacks {more}, "
            f"which {unconditional._formula()} has: the conditional one comes first"
        )
    scale = real_scalar(scale, "scale=")
    return (1 + scale) * conditional - scale * unconditional
