"""The verb `sample` and what it returns."""

import dataclasses
import functools
import importlib
import io
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import energia as en
from energia.sampling import _driver
from energia.sampling._progress import Progress

arviz: Any = importlib.import_module("arviz_stats")

NORMAL = en.Gaussian([1.0, -1.0], scale=[1.0, 0.5])
BOUNDED = en.energy(rate=en.Positive(), share=en.Interval(-1, 2, (2,)))(
    lambda rate, share: rate - jnp.log(rate) + jnp.sum(share**2)
)
STATS = {
    "langevin": {"lp"},
    "mala": {"acceptance_rate", "lp", "step_size"},
    "hmc": {"acceptance_rate", "diverging", "energy", "lp", "n_steps", "step_size"},
    "nuts": {
        "acceptance_rate",
        "diverging",
        "energy",
        "lp",
        "n_steps",
        "reached_max_treedepth",
        "step_size",
        "tree_depth",
    },
}
METHODS = ["vectorized", "parallel"]
DISCRETE = ("gibbs", "gibbs_with_gradients", "discrete_langevin")  # they cannot move NORMAL
EVERY = {n: en.samplers.registry.get(n) for n in en.samplers.names() if n not in DISCRETE}
KINDS = {n: k for n, k in EVERY.items() if not issubclass(k, en.samplers.ParticleSampler)}
TOGETHER = {name for name, kind in KINDS.items() if issubclass(kind, en.samplers.AllChains)}
each_sampler = pytest.mark.parametrize("sampler", KINDS)
each_method = pytest.mark.parametrize("method", METHODS)
each_run = pytest.mark.parametrize(
    ("sampler", "method"),
    [(n, m) for n in KINDS for m in METHODS if n not in TOGETHER or m == "vectorized"],
)
quiet = pytest.mark.filterwarnings("ignore::energia.ConvergenceWarning")

# Another length, thinning or key compiles nothing, so every test here shares these programs.


def draw(
    sampler: Any, method: str = "auto", energy: en.Energy = NORMAL, **options: Any
) -> en.Draws:
    options = {"key": jax.random.key(0), "num_warmup": 60, "num_samples": 40} | options
    if isinstance(sampler, str) and sampler in TOGETHER:  # their chains run side by side
        method = "auto"
    return en.sample(energy, sampler, chain_method=method, **options)


def assert_equal(first: en.Draws, second: en.Draws, rows: slice = slice(None)) -> None:
    """Bit for bit."""
    assert set(first) == set(second)
    assert set(first.stats) == set(second.stats)
    for one, two in [(first.positions, second.positions), (first._stats, second._stats)]:
        for name in one:
            np.testing.assert_array_equal(one[name], two[name][:, rows], err_msg=name)


# --- what comes back


@quiet
@each_sampler
def test_shapes_and_names(sampler: str) -> None:
    draws = draw(sampler)
    assert draws["x"].shape == (4, 40, 2)
    assert isinstance(draws["x"], jax.Array)
    assert draws["x"].dtype == jnp.float32
    assert (draws.num_chains, draws.num_samples, list(draws)) == (4, 40, ["x"])
    assert sampler not in STATS or set(draws.stats) == STATS[sampler]
    for value in draws.stats.values():
        assert value.shape[:2] == (4, 40)
    np.testing.assert_allclose(
        draws.stats["lp"], -jax.vmap(jax.vmap(NORMAL))(draws["x"]), rtol=1e-4, atol=1e-5
    )
    assert "x [2]; 4 chains × 40 draws" in repr(draws)
    with pytest.raises(KeyError, match="'y'; there are x"):
        draws["y"]


@pytest.fixture(scope="module")
def bounded() -> en.Draws:
    return draw("nuts", energy=BOUNDED, num_warmup=500, num_samples=500)


def test_bounded_variables(bounded: en.Draws) -> None:
    assert bounded["rate"].shape == (4, 500)
    assert bounded["share"].shape == (4, 500, 2)
    for name, support in BOUNDED.supports.items():
        assert support is not None
        assert jnp.all(support.contains(bounded[name]))
    energies = jax.vmap(jax.vmap(lambda rate, share: BOUNDED(rate=rate, share=share)))(
        bounded["rate"], bounded["share"]
    )  # lp is the log density of the variables themselves, without a Jacobian
    np.testing.assert_allclose(bounded.stats["lp"], -energies, rtol=1e-4, atol=1e-5)


def test_summary_and_verdict(bounded: en.Draws, capsys: pytest.CaptureFixture[str]) -> None:
    table = bounded.summary()
    assert list(table.index) == ["rate", "share[0]", "share[1]"]
    assert {"mean", "sd", "ess_bulk", "ess_tail", "r_hat", "mcse_mean"} <= set(table.columns)
    verdict = bounded.diagnose()
    assert verdict.ok
    assert capsys.readouterr().out == f"{verdict}\n"
    assert str(verdict).startswith("converged, as far as can be seen: max R-hat 1.00")
    full, tree = bounded.summary(round_to="none"), bounded.to_arviz()
    assert verdict.max_rhat == pytest.approx(full["r_hat"].max(), rel=1e-3)
    tails = arviz.ess(tree, method="tail", prob=(0.05, 0.95))
    tail = min(float(tails[name].min()) for name in bounded)
    assert verdict.min_ess == pytest.approx(min(tail, full["ess_bulk"].min()), rel=1e-3)
    assert verdict.bfmi is not None
    bounded.diagnose(show=False)
    assert capsys.readouterr().out == ""


def test_arviz(bounded: en.Draws) -> None:
    tree = bounded.to_arviz()
    assert set(tree.children) == {"posterior", "sample_stats"}
    assert tree.posterior["share"].dims == ("chain", "draw", "share_dim_0")
    assert tree.posterior.attrs["inference_library"] == "energia"
    assert set(tree.sample_stats.data_vars) == STATS["nuts"]
    assert float(arviz.rhat(tree)["rate"]) < 1.05
    assert arviz.bfmi(tree)["energy"].shape == (4,)


@quiet
def test_more_chains_than_draws_reach_arviz() -> None:
    assert draw("mala", num_samples=2).to_arviz().posterior.sizes["draw"] == 2


def test_bias_is_told() -> None:
    verdict = draw(
        en.samplers.Langevin(step_size=0.1), num_warmup=500, num_samples=4000, thin=2
    ).diagnose(show=False)
    assert verdict.ok
    assert "note: biased by design, not only by chance: no Metropolis step" in str(verdict)


# --- the law of keys and counts


@quiet
@each_run
def test_extend_equals_one_longer_run(sampler: str, method: str) -> None:
    long = draw(sampler, method, num_samples=90, thin=2)
    short = draw(sampler, method, num_samples=25, thin=2)
    assert_equal(short, long, slice(25))
    longer = short.extend(1).extend(64)
    assert_equal(longer, long)
    assert longer.steps == long.steps
    assert_equal(short.extend(65), long)  # the state that the first `extend` used is intact


@quiet
@each_run
def test_thin_keeps_every_nth(sampler: str, method: str) -> None:
    every = draw(sampler, method, num_samples=60)
    third = draw(sampler, method, num_samples=20, thin=3)
    for name, value in {**every.positions, **every._stats}.items():
        expected = value[:, 2::3]
        if value.dtype == bool:  # a divergence between two kept draws is told
            expected = value.reshape(4, 20, 3).any(-1)
        np.testing.assert_array_equal({**third.positions, **third._stats}[name], expected, name)


@quiet
def test_slices_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = draw("mala", num_samples=50, thin=3)
    monkeypatch.setattr(_driver, "FIRST_SLICE", 7)
    monkeypatch.setattr(_driver, "SLICE_SECONDS", 0.0)
    assert_equal(draw("mala", num_samples=50, thin=3), whole)


@quiet
def test_more_draws_than_a_buffer() -> None:
    long = draw("mala", num_samples=2100)
    assert long["x"].shape == (4, 2100, 2)
    assert_equal(draw("mala", num_samples=1030), long, slice(1030))


@quiet
@pytest.mark.parametrize("sampler", [name for name in KINDS if name not in TOGETHER])
def test_chains_do_not_depend_on_how_they_run(sampler: str) -> None:
    parallel = draw(sampler, "parallel", num_samples=5, num_warmup=5)
    alone = draw(sampler, "parallel", num_samples=5, num_warmup=5, num_chains=1)
    np.testing.assert_array_equal(alone.positions["x"][0], parallel.positions["x"][0])
    together = draw(sampler, "vectorized", num_samples=5, num_warmup=5)
    np.testing.assert_array_equal(together.chain_keys, parallel.chain_keys)
    np.testing.assert_allclose(together["x"], parallel["x"], rtol=1e-3, atol=1e-3)


@quiet
def test_keys(key: jax.Array) -> None:
    first = draw("mala", key=key)
    assert_equal(draw("mala", key=key), first)
    other = draw("mala", key=jax.random.fold_in(key, 1))
    assert not np.array_equal(first["x"], other["x"])
    chains = first.positions["x"].reshape(4, -1)
    assert len({chain.tobytes() for chain in chains}) == 4
    wide = draw("mala", key=jax.random.key(0, impl="rbg"))
    assert wide.chain_keys.shape == (4, 4)
    assert_equal(draw("mala", key=jax.random.key(0, impl="rbg"), num_samples=20).extend(20), wide)


@quiet
@each_method
def test_64_bits(method: str) -> None:
    with jax.enable_x64(True):
        energy = en.Gaussian(np.zeros(2))
        draws = draw(en.samplers.NUTS(max_num_doublings=3), method, energy, num_chains=2)
        assert draws["x"].dtype == jnp.float64
        assert draws.stats["lp"].dtype == jnp.float64
        longer = draw(
            en.samplers.NUTS(max_num_doublings=3), method, energy, num_chains=2, num_samples=45
        )
        assert_equal(draws.extend(5), longer)


# --- warm-up and starts


@pytest.mark.parametrize("num_warmup", [10, 20, 30, 75, 150])
@quiet
def test_short_warmup_tunes_the_step_size(num_warmup: int) -> None:
    draws = draw("nuts", num_warmup=num_warmup, num_samples=100)
    assert draws.stats["acceptance_rate"].mean() > 0.6
    assert np.ptp(draws._stats["step_size"], axis=1).max() == 0  # it stays after warm-up


def test_trajectories_of_hmc_do_not_come_back() -> None:
    """Ten steps of a tenth of the period each, the same for all, come back to where they began."""
    energy, step_size = en.Gaussian(np.zeros(10)), 2 * np.sin(np.pi / 10)
    draws = draw("hmc", energy=energy, num_warmup=500, num_samples=1000)
    assert draws.diagnose(show=False).min_ess > 800
    given = {"step_size": step_size, "inverse_mass_matrix": np.ones(10)}
    draws = draw(en.samplers.HMC(**given), energy=energy, num_samples=1000)
    assert draws.diagnose(show=False).min_ess > 800
    plain = en.samplers.HMC(**given, step_size_jitter=0.0)
    with pytest.warns(en.ConvergenceWarning, match="a chain, below 100"):
        draw(plain, energy=energy, num_samples=1000)


@quiet
def test_given_starts() -> None:
    frozen = en.samplers.Langevin(step_size=1e-12, noise_scale=0.0)
    options: dict[str, Any] = {"num_warmup": 0, "num_samples": 1}
    one = draw(frozen, init=[2.0, 3.0], **options)
    np.testing.assert_allclose(one["x"], np.broadcast_to([2.0, 3.0], (4, 1, 2)), atol=1e-6)
    starts = np.arange(8.0).reshape(4, 2)
    each = draw(frozen, init={"x": starts}, **options)
    np.testing.assert_allclose(each["x"][:, 0], starts, atol=1e-6)
    part = draw(frozen, energy=BOUNDED, init={"rate": 3.0}, **options)
    np.testing.assert_allclose(part["rate"], np.full((4, 1), 3.0), rtol=1e-6)
    assert len(np.unique(part["share"])) == 8
    assert bool(jnp.all((part["share"] > -1) & (part["share"] < 2)))


@quiet
def test_unknown_support_takes_the_shape_of_init() -> None:
    energy = en.energy(lambda x: jnp.sum(x**2))
    langevin = en.samplers.Langevin()
    options: dict[str, Any] = {"energy": energy, "num_warmup": 0, "num_samples": 3}
    assert draw(langevin, init=np.zeros((2, 3)), **options)["x"].shape == (4, 3, 2, 3)
    assert draw(langevin, init=np.zeros((4, 3)), **options)["x"].shape == (4, 3, 3)


@quiet
def test_starts_are_drawn_again_where_the_energy_is_infinite() -> None:
    @en.energy(x=en.Real((2,)))
    def corner(x):
        return jnp.where(jnp.all(x > 1.0), jnp.sum(x**2), jnp.inf)

    draws = draw("mala", energy=corner)
    assert bool(jnp.all(draws["x"] > 1.0))
    assert bool(jnp.all(jnp.isfinite(draws.stats["lp"])))


# --- keep


@quiet
@each_sampler
def test_save_load_extend(sampler: str, tmp_path: Path) -> None:
    draws = draw(sampler)
    draws.save(tmp_path / "draws.npz")
    assert [file.name for file in tmp_path.iterdir()] == ["draws.npz"]
    loaded = en.Draws.load(tmp_path / "draws.npz", energy=NORMAL)
    assert_equal(loaded, draws)
    assert type(loaded.sampler) is type(draws.sampler)
    assert_equal(loaded.extend(10), draws.extend(10))


@quiet
def test_load_in_a_fresh_process(tmp_path: Path) -> None:
    draws = draw("mala", "parallel")
    draws.save(tmp_path / "draws.npz")
    script = f"""
        import energia as en
        energy = en.Gaussian([1.0, -1.0], scale=[1.0, 0.5])
        draws = en.Draws.load({str(tmp_path / "draws.npz")!r}, energy=energy)
        draws.extend(10).save({str(tmp_path / "longer.npz")!r})
    """
    command = [sys.executable, "-W", "ignore::UserWarning", "-c", textwrap.dedent(script)]
    subprocess.run(command, check=True, timeout=120, cwd=Path(en.__file__).parents[1])
    assert_equal(en.Draws.load(tmp_path / "longer.npz"), draws.extend(10))


@quiet
def test_load_without_the_energy(tmp_path: Path) -> None:
    draws = draw("mala")
    draws.save(tmp_path / "draws.npz")
    loaded = en.Draws.load(tmp_path / "draws.npz")
    assert loaded.energy is None
    assert_equal(loaded, draws)
    assert loaded.diagnose(show=False).max_rhat == draws.diagnose(show=False).max_rhat
    with pytest.raises(ValueError, match=r"loaded without their energy: Draws.load\(path, energy="):
        loaded.extend(1)
    loaded.save(tmp_path / "again.npz")  # nothing is lost on the way
    again = en.Draws.load(tmp_path / "again.npz", energy=NORMAL)
    assert_equal(again.extend(10), draws.extend(10))


@quiet
def test_load_of_another_energy(tmp_path: Path) -> None:
    path = tmp_path / "draws.npz"
    draw("mala").save(path)
    load = functools.partial(en.Draws.load, path)
    with pytest.raises(ValueError, match="made with another energy: at the last draw of chain"):
        load(energy=en.Gaussian([1.1, -1.0], scale=[1.0, 0.5]))
    with pytest.raises(ValueError, match=r"holds the variables \('x',\), the energy has \('z',\)"):
        load(energy=NORMAL.rename(x="z"))
    with pytest.raises(
        ValueError, match=r"holds 'x' of shape \(2,\), the energy needs real \(3,\)"
    ):
        load(energy=en.Gaussian(jnp.zeros(3)))
    with pytest.raises(ValueError, match="another sampler than NUTS"):
        load(energy=NORMAL, sampler="nuts")


class Unregistered(en.samplers.Langevin):
    """A sampler that has no name."""


@quiet
def test_load_of_an_unregistered_sampler(tmp_path: Path) -> None:
    sampler = Unregistered(step_size=0.1)
    draws = draw(sampler)
    draws.save(tmp_path / "draws.npz")
    assert en.Draws.load(tmp_path / "draws.npz").sampler is None
    with pytest.raises(ValueError, match="sampler that is not registered: give sampler="):
        en.Draws.load(tmp_path / "draws.npz", energy=NORMAL)
    loaded = en.Draws.load(tmp_path / "draws.npz", energy=NORMAL, sampler=sampler)
    assert_equal(loaded.extend(5), draws.extend(5))


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "text", "an array", "no meta"])
@quiet
def test_load_of_a_damaged_file(damage: str, tmp_path: Path) -> None:
    path = tmp_path / "draws.npz"
    draw("mala").save(path)
    content = bytearray(path.read_bytes())
    buffer = io.BytesIO()
    match damage:
        case "cut":
            content = content[: len(content) // 2]
        case "flipped":
            content[200] ^= 1
        case "empty":
            content = bytearray()
        case "text":
            content = bytearray(b"not an archive at all")
        case "an array":
            np.save(buffer, np.zeros(3))
            content = bytearray(buffer.getvalue())
        case "no meta":
            np.savez(buffer, x=np.zeros(3))
            content = bytearray(buffer.getvalue())
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"draws\.npz cannot be read as energia\.draws/1: "):
        en.Draws.load(path)


def test_load_of_another_kind(tmp_path: Path) -> None:
    from energia.sampling._storage import write_npz

    write_npz(tmp_path / "other.npz", {}, {"format": "energia.fit/1"})
    with pytest.raises(ValueError, match=r"holds 'energia.fit/1', expected 'energia.draws/1'"):
        en.Draws.load(tmp_path / "other.npz")
    with pytest.raises(FileNotFoundError):
        en.Draws.load(tmp_path / "missing.npz")
    with pytest.raises(FileNotFoundError, match="does not exist: make it first"):
        write_npz(tmp_path / "folder" / "draws.npz", {}, {})


# --- progress


@quiet
def test_progress_in_a_file(capfd: pytest.CaptureFixture[str]) -> None:
    draw("mala", progress=True)
    shown = capfd.readouterr().err
    assert shown.startswith("MALA, 4 chains  100%  400/400  ")
    assert shown.endswith("\n")
    assert shown.count("\n") == 1
    assert not any(ord(character) < 32 for character in shown.rstrip("\n"))
    draw("mala")  # standard error is no terminal here
    draw("mala", progress=False)
    assert capfd.readouterr().err == ""


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_in_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("energia.sampling._progress.REFRESH_SECONDS", 0.0)
    stream = Terminal()
    with Progress("NUTS", 10, None, stream) as bar:
        bar(1)
        bar(3, "a long note about something")
        bar(6, "short")
    lines = stream.getvalue().removesuffix("\n").split("\r")[1:]
    counts = [["10%", "1/10"], ["40%", "4/10"], ["100%", "10/10"], ["100%", "10/10"]]
    assert [line.split()[1:3] for line in lines] == counts
    assert len(lines[2]) >= len(lines[1].rstrip())  # what stood there is overwritten
    assert "left" not in lines[0]  # the first steps came with compiling, which tells nothing
    assert "left" in lines[1]
    assert "\n" not in stream.getvalue()[:-1]


def test_progress_in_a_notebook() -> None:
    """Its stream is no terminal, and knows how to go back to the start of a line."""
    stream = type("OutStream", (io.StringIO,), {"__module__": "ipykernel.iostream"})()
    with Progress("NUTS", 10, None, stream) as bar:
        bar(10)
    assert stream.getvalue().startswith("\rNUTS  100%")


@quiet
@each_method
def test_progress_counts_every_step(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    bars = []

    class Spy(Progress):
        def __init__(self, *args: Any, **kwargs: Any):
            super().__init__(*args, **kwargs)
            bars.append(self)

    monkeypatch.setattr("energia.sampling._draws.Progress", Spy)
    draw("mala", method, num_samples=10, thin=3).extend(5)
    assert [(bar.done, bar.total) for bar in bars] == [(360, 360), (60, 60)]


@quiet
def test_an_interrupt_ends_all_chains(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_driver, "SLICE_SECONDS", 0.0)  # a slice a step
    calls = []

    def interrupt(self: Progress, steps: int, note: str = "") -> None:
        calls.append(steps)
        if len(calls) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(Progress, "__call__", interrupt)
    with pytest.raises(KeyboardInterrupt):
        draw("mala", "parallel", num_samples=5000)
    assert len(calls) < 500


# --- warnings, with their numbers


@pytest.mark.parametrize(
    ("sampler", "options", "message"),
    [
        (
            en.samplers.HMC(step_size=1e4, inverse_mass_matrix=[1.0, 1.0]),
            {},
            r"4 of 4 chains never moved \(chain 0 first\): the step size is too large",
        ),
        (
            en.samplers.HMC(step_size=1e4, inverse_mass_matrix=[1.0, 1.0]),
            {},
            r"\d+ of 2000 transitions diverged: take smaller steps",
        ),
        (
            en.samplers.MALA(step_size=1e-6),
            {"init": np.array([[5.0, 0], [-5, 0], [1, 0], [0, 0]])},
            r"R-hat of x\[\d\] is \d+\.\d\d\d, above 1.01: the chains disagree",
        ),
        (
            en.samplers.Langevin(step_size=0.005),
            {},
            r"the effective sample size of x\[\d\] is \d+, \d+ a chain, below 100",
        ),
        (
            en.samplers.Langevin(step_size=2.0),
            {},
            r"draws of x\[1\] are not finite: the step size is too large",
        ),
        (
            "mala",
            {"num_chains": 1},
            "one chain cannot be checked against another: use num_chains=4",
        ),
        ("mala", {"num_samples": 3}, "3 draws a chain are too few to check: R-hat and ESS need 4"),
    ],
)
def test_convergence_warning(sampler: Any, options: dict[str, Any], message: str) -> None:
    with pytest.warns(en.ConvergenceWarning, match=message) as caught:
        draws = draw(sampler, **{"num_samples": 500, **options})
    (warning,) = caught
    assert isinstance(warning.message, en.ConvergenceWarning)
    verdict = draws.diagnose(show=False)
    assert not verdict.ok
    assert set(warning.message.problems) <= set(verdict.problems)


def test_no_warning_without_a_reason() -> None:
    draws = draw("nuts", num_warmup=500, num_samples=500)  # warnings are errors
    assert draws.extend(100).diagnose(show=False).ok


def test_draws_are_not_compared_by_value(bounded: en.Draws) -> None:
    other = dataclasses.replace(bounded)
    assert bounded != other
    assert len({bounded, bounded, other}) == 2
