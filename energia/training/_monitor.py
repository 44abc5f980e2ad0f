"""The classic failures of training, read off the history."""

import dataclasses
from collections.abc import Mapping

import numpy as np

ENERGIES = ("positives", "negatives")
LOOK_BACK = 4096
EXPLODED = 1000.0
CALM = 10.0
EXPLODED_STEPS = 8
NARROW = 0.05
NARROW_STEPS = 512
WRONG_SIGN_STEPS = 1024
STILL_STEPS = 512
RISE = 1.1


@dataclasses.dataclass(frozen=True)
class Failure:
    """What went wrong, from which step on, and whether what came before it is to be had back."""

    began: int
    text: str
    roll_back: bool = False


def find(history: Mapping[str, np.ndarray], entries: int, ended: bool) -> Failure | None:
    """The failure that a history ends with, if any.

    Energies explode where they are above a thousand nats an entry, and a thousand times what the
    model gave before it was trained. A loss may fall as far as it likes.

    Args:
        history: one number a step; looked at are `loss`, `positives` and `negatives` (mean energies
            of data and samples), `spread` (the deviation of samples over that of the data) and
            `gradient_norm`.
        entries: how many numbers a datum has: energies grow with them.
        ended: whether the next step is not finite, so that the history will be no longer.
    """
    steps, since = len(history["loss"]), len(history["loss"])
    for name, values in _sizes(history).items():
        level = EXPLODED * (entries + np.abs(history[name][:1], dtype=float))
        since = min(since, steps - _trailing(values > level))
    if since < steps and (ended or steps - since >= EXPLODED_STEPS):
        told = ", ".join(f"{n} {history[n][-1]:.3g}" for n in ("loss", *ENERGIES) if n in history)
        return Failure(
            since,
            f"the energies explode ({told}). What usually helps: a lower learning rate, "
            "optax.clip_by_global_norm before the optimiser, energy_regularization, a smaller "
            "step_size of the sampler or more of its steps",
            roll_back=True,
        )
    return _narrow(history) or _wrong_sign(history, entries) or _still(history)


def calm(history: Mapping[str, np.ndarray], entries: int) -> bool:
    """Whether no energy is many times what it was: a state to go back to."""
    return all(
        np.max(values[-EXPLODED_STEPS:], initial=0) <= CALM * (entries + np.median(np.abs(values)))
        for values in _sizes(history).values()
    )


def _sizes(history: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What must not grow without bound: sizes of energies, and the loss, which may fall."""
    sizes = {n: np.abs(history[n][-LOOK_BACK:], dtype=float) for n in ENERGIES if n in history}
    return {"loss": history["loss"][-LOOK_BACK:].astype(float), **sizes}


def _narrow(history: Mapping[str, np.ndarray]) -> Failure | None:
    spread = history.get("spread", np.ones(0))[-NARROW_STEPS:]
    if len(spread) < NARROW_STEPS or np.any(spread > NARROW):
        return None
    before, after = np.median(np.split(spread, 2), axis=1)
    if after > RISE * before:
        return None
    return Failure(
        len(history["spread"]) - _trailing(history["spread"] <= NARROW),
        f"the samples collapse: their spread is {after:.2g} of the data's. What usually helps: "
        "a higher reinit_prob, the noise of the sampler at its full scale, more of its steps",
    )


def _wrong_sign(history: Mapping[str, np.ndarray], entries: int) -> Failure | None:
    if not all(name in history for name in ENERGIES):
        return None
    positives, negatives = (history[n][-WRONG_SIGN_STEPS:].astype(float) for n in ENERGIES)
    gap = positives - negatives
    if len(gap) < WRONG_SIGN_STEPS or np.mean(gap > 0) < 0.95:
        return None
    before, after = np.median(np.split(gap, 2), axis=1)
    if after < entries or after < RISE * before:
        return None
    return Failure(
        len(history["loss"]) - WRONG_SIGN_STEPS,
        f"the data have higher energies than the samples, and more and more so (by {after:.3g} "
        "nats): training drives them apart. What usually helps: the sign of the optimiser or of "
        "the energy, a lower learning rate, a sampler with a Metropolis step",
    )


def _still(history: Mapping[str, np.ndarray]) -> Failure | None:
    still = _trailing(history.get("gradient_norm", np.ones(0)) == 0)
    if still < STILL_STEPS:
        return None
    return Failure(
        len(history["loss"]) - still,
        "the gradient is exactly zero: nothing is learned (as where every unit of a network is "
        "switched off). What usually helps: a lower learning rate, a smooth activation",
    )


def _trailing(flags: np.ndarray) -> int:
    """How many at the end are true."""
    wrong = np.flatnonzero(~flags)
    return len(flags) - 1 - int(wrong[-1]) if len(wrong) else len(flags)
