"""The factor graph of an energy: its variables, the terms that it is the sum of, its rows."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Literal

import jax

from energia._types import is_concrete
from energia.energies._algebra import Constrained, Frozen, Scaled
from energia.energies._energy import Energy
from energia.energies._marginal import Marginal
from energia.energies._substituted import Substituted, _Name, _Value
from energia.energies._total import Total

LONGEST = 18  # letters of a name that are shown
Kind = Literal["free", "observed", "marginal", "factor"]


@dataclasses.dataclass(frozen=True)
class Node:
    """A variable or a factor; `plates` are the sums over rows in which it stands, outermost first.

    Free variables are drawn, observed ones are fixed to a value or are rows of data, marginal ones
    are summed out.
    """

    kind: Kind
    label: str
    plates: tuple[int, ...] = ()


@dataclasses.dataclass
class Graph:
    """A bipartite graph of variables and factors; edges are (factor, variable) by index."""

    nodes: list[Node] = dataclasses.field(default_factory=list)
    edges: list[tuple[int, int]] = dataclasses.field(default_factory=list)
    plates: list[str] = dataclasses.field(default_factory=list)

    def add(self, kind: Kind, name: str, plates: tuple[int, ...]) -> int:
        """A new node and its index; a variable of rows has the index i."""
        rows = plates and kind != "factor"
        self.nodes.append(Node(kind, f"{name}$_i$" if rows else name, plates))
        return len(self.nodes) - 1


def graph_of(energy: Energy) -> Graph:
    """The factor graph of an energy."""
    graph = Graph()
    values: dict[int, int] = {}  # a value that several terms hold is one observed variable
    variables = {name: (graph.add("free", name, ()),) for name in energy.variables}
    _visit(energy, variables, (), 1.0, graph, values)
    return graph


def _visit(
    energy: Energy,
    variables: Mapping[str, tuple[int, ...]],
    plates: tuple[int, ...],
    weight: float,
    graph: Graph,
    values: dict[int, int],
) -> None:
    """Add the factors of an energy, each of whose variables stands for some nodes."""
    terms = energy._terms()
    if len(terms) > 1:
        for term in terms:
            _visit(term, variables, plates, weight, graph, values)
        return
    match energy:
        case Constrained() | Frozen():
            _visit(energy.energy, variables, plates, weight, graph, values)
        case Scaled():
            weight *= _number(energy.weight)
            _visit(energy.energy, variables, plates, weight, graph, values)
        case Substituted():
            inner = _replaced(energy, variables, graph, values)
            _visit(energy.energy, inner, plates, weight, graph, values)
        case Total():
            graph.plates.append(f"i ≤ {energy.num_rows}")
            plates = (*plates, len(graph.plates) - 1)
            rows = {name: (graph.add("observed", name, plates),) for name in energy.rows}
            weight *= _number(energy.weight)
            _visit(energy.energy, {**variables, **rows}, plates, weight, graph, values)
        case Marginal() if weight == 1:  # a weight does not go into the sum
            gone = {name: (graph.add("marginal", name, plates),) for name in energy.names}
            _visit(energy.energy, {**variables, **gone}, plates, 1.0, graph, values)
        case _:
            factor = graph.add("factor", _weighted(weight, energy._name), plates)
            touched = dict.fromkeys(n for name in energy.variables for n in variables[name])
            graph.edges += [(factor, node) for node in touched]


def _replaced(
    energy: Substituted,
    variables: Mapping[str, tuple[int, ...]],
    graph: Graph,
    values: dict[int, int],
) -> dict[str, tuple[int, ...]]:
    """The nodes that the inner energy's variables stand for."""
    inner = {}
    for name in energy.energy.variables:
        match new := energy.replacements.get(name, _Name(name)):
            case _Value(label=""):  # a number in a prior, no data
                inner[name] = ()
            case _Value(value=value, label=label):
                if id(value) not in values:  # one for all rows: outside of plates
                    values[id(value)] = graph.add("observed", label, ())
                inner[name] = (values[id(value)],)
            case _:
                inner[name] = tuple(n for source in new.names for n in variables[source])
    return inner


def _number(weight: jax.Array) -> float:
    """A weight; not a number while it is traced, or a batch."""
    return float(weight) if is_concrete(weight) and weight.ndim == 0 else math.nan


def _weighted(weight: float, name: str) -> str:
    name = name if len(name) <= LONGEST else f"{name[: LONGEST - 1]}…"
    number = "w" if math.isnan(weight) else f"{weight:.3g}"
    return {"1": name, "-1": f"-{name}"}.get(number, f"{number}·{name}")
