"""What of a loop is computed where: ahead of the kernel, inside it, behind it; and the kernel's schedule.

Ahead and behind, for all steps at once, products are done by functions of our own and the rest by torch.

A kernel's step is a list of phases: products with shared matrices, each followed by sweeps over the columns of every
row. Within a sweep everything is computed number by number in registers; a sum across the width, a product, or columns
put side by side end a sweep, since what follows needs the whole row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from elman.compiler.emit.columns import base, period, single, worthwhile
from elman.compiler.emit.joined import chain, joined, onto
from elman.compiler.graph import ACROSS, LEAVES, POINTWISE, PRODUCTS, TOTALS, Loop, Node, Op, order
from elman.compiler.unfold import unfold

EXPENSIVE = POINTWISE - {
    *(Op.ADD, Op.SUB, Op.MUL, Op.NEG, Op.ABS, Op.MAX, Op.MIN, Op.LT, Op.LE, Op.EQ, Op.WHERE, Op.DETACH),
}
STREAMED = {Op.STEP, Op.FIXED}
Moment = tuple[int, int, int]  # phase, sweep within it, width


@dataclass(frozen=True)
class Place:
    """Where rows of a value lie: temporary rows, an output sequence, or the next state; from a column on."""

    kind: str  # "temp", "stored", "state"
    key: Node | str
    offset: int = 0


@dataclass
class Sweep:
    """One pass over the columns of a row."""

    moment: Moment
    writes: list[tuple[Node, Place]] = field(default_factory=list)
    sums: list[Node] = field(default_factory=list)  # SUM and LARGEST
    totals: list[Node] = field(default_factory=list)  # ROWSUM


@dataclass
class Phase:
    """Products, then sweeps over each row."""

    products: list[Node] = field(default_factory=list)
    sweeps: list[Sweep] = field(default_factory=list)


@dataclass
class Plan:
    """The schedule of one loop, and every buffer that it needs."""

    loop: Loop
    wide: bool
    hoisted: bool
    panel: int
    ahead: list[Node]  # computed before it, for all steps at once
    inside: list[Node]
    behind: list[Node]
    streams: list[Node] = field(
        default_factory=list
    )  # read at each step: inputs of steps, fixed ones, results from ahead
    vectors: list[Node] = field(default_factory=list)
    weights: list[tuple[Node, bool]] = field(default_factory=list)  # shared matrices, and whether transposed
    stored: list[Node] = field(default_factory=list)  # written out at each step
    paths: set[str] = field(default_factory=set)  # states of which every step is kept
    temps: list[Node] = field(default_factory=list)
    totals: list[Node] = field(default_factory=list)
    phases: list[Phase] = field(default_factory=list)
    home: dict[Node, Place] = field(default_factory=dict)  # where a value can be read once written
    written: dict[Node, Moment] = field(default_factory=dict)
    period: int = 0  # of columns, where threads of a narrow plan have columns of their own; see columns.py

    @property
    def sides(self) -> list[Node]:
        """What stands on the left of a matrix product."""
        return list(dict.fromkeys(n.src[0] for n in self.inside if n.op is Op.MATMUL))

    @property
    def matrices(self) -> list[tuple[int, int]]:
        """(K, N) of each weight, as the products read it."""
        return [(n.width, n.rows) if turned else (n.rows, n.width) for n, turned in self.weights]


def plan(loop: Loop, narrow: int, hoisted: bool, panel: int) -> Plan:
    """Divide a loop and schedule its inside.

    narrow: threads that share columns; 0: each thread runs rows of its own. hoisted: products that need no state are
    done for all steps at once; otherwise at their step, while their sides are in the cache, and only sums over all rows
    stay behind. panel: columns of a product's tile; a result of whole tiles is written straight to its output.
    """
    parts, still = divide(loop, hoisted), without_steps(loop)
    places = {
        node: name for name, part in zip(("ahead", "inside", "behind"), parts) for node in part if node not in still
    }
    loop = joined(loop, lambda node: places.get(node, ""))
    made = Plan(loop, not narrow, hoisted, panel, *divide(loop, hoisted))
    choose_outputs(made)
    if narrow:
        found = period(made.inside, [*made.stored, *loop.carried.values()], panel)
        even = found // panel % narrow == 0  # else some threads would have more to do than others
        made.period = found if even and worthwhile(made.inside) else 0
    when = moments(made)
    choose_memory(made)
    while True:
        schedule(made, when)
        again = missing(made)
        if not again:
            return made
        for node in again:
            keep(made, node)


def divide(loop: Loop, hoisted: bool) -> tuple[list[Node], list[Node], list[Node]]:
    """(ahead, inside, behind): products that need no state with what they need; the kernel's; what reads all steps."""
    part = unfold(loop)
    nodes = [n for n in loop.nodes() if n.op not in LEAVES]
    still = without_steps(loop)
    early = [n for n in nodes if n.op is Op.MATMUL and part[n] == "before" and (n in still or hoisted)]
    ahead = {n for n in order(early) if n.op not in LEAVES}
    behind: set[Node] = set()
    for n in nodes:
        late = n.op is Op.MATMUL and part[n] == "after" and hoisted
        if n not in ahead and (late or n.op is Op.OUTER or any(s in behind for s in n.src)):
            behind.add(n)
    outputs = [*loop.per_step.values(), *loop.summed.values(), *loop.carried.values()]
    needed = {s for n in behind for s in n.src} | set(outputs)
    inside = [n for n in order(n for n in nodes if n in needed - ahead - behind) if n.op not in LEAVES]
    return [n for n in nodes if n in ahead], [n for n in inside if n not in ahead], [n for n in nodes if n in behind]


def matrices(loop: Loop) -> tuple[int, int]:
    """Elements of the matrices in products that need no state, and could be hoisted, and of those that wait for it."""
    part, still = unfold(loop), without_steps(loop)
    free: set[Node] = set()
    waiting: set[Node] = set()
    for n in loop.nodes():
        if n.op is Op.MATMUL and n not in still:
            (waiting if part[n] == "during" else free).add(n.src[1])
    return sum(m.rows * m.width for m in free), sum(m.rows * m.width for m in waiting)


def without_steps(loop: Loop) -> set[Node]:
    """Values that are the same at every step."""
    return without(loop, {Op.STEP, Op.STATE})


def without_rows(loop: Loop) -> set[Node]:
    """Values that are the same for every row, too."""
    return without(loop, {Op.STEP, Op.STATE, Op.FIXED})


def without(loop: Loop, leaves: set[Op]) -> set[Node]:
    """Values that are computed from no such leaf."""
    found: set[Node] = set()
    for n in loop.nodes():
        if n.op not in leaves and all(s in found for s in n.src):
            found.add(n)
    return found


def choose_outputs(made: Plan) -> None:
    """What the kernel reads and writes at each step."""
    loop, inside = made.loop, set(made.inside)
    # in a fixed order: the kernel kept on disk must find everything where this process puts it
    read = list(dict.fromkeys([*(s for n in made.inside for s in n.src), *loop.carried.values()]))
    made.streams = [n for n in read if n.op in STREAMED or n in made.ahead]
    made.vectors = [n for n in read if n.op is Op.SHARED and not n.rows]
    for n in made.inside:
        pair = (n.src[1], bool(n.arg)) if n.op is Op.MATMUL else None
        if pair and pair not in made.weights:
            made.weights.append(pair)
    made.totals = [n for n in made.inside if n.op in TOTALS]
    asked = [*loop.per_step.values(), *(s for n in made.behind for s in n.src)]
    first_of = {node: name for name, node in reversed(list(loop.carried.items()))}
    for n in dict.fromkeys(asked):
        if n.op is Op.STATE:
            made.paths.add(n.arg)
        elif n in inside and n in first_of:
            made.paths.add(first_of[n])
        elif n in inside:
            made.stored.append(n)


def moments(made: Plan) -> dict[Node, Moment]:
    """The earliest phase and sweep in which each value can be read by others."""
    when: dict[Node, Moment] = {}
    inside = set(made.inside)
    pulled = {s for n in made.inside if n.op not in PRODUCTS for s in n.src}
    for n in order(made.inside):
        if n not in inside:
            when[n] = (0, 0, n.width)
        elif n.op in PRODUCTS:
            # what does not lie in memory when a phase begins is waited for until the next
            first = [when[s][0] + (s in inside and s.op not in PRODUCTS) for s in sides(n)]
            when[n] = (max(first, default=0), 0, n.width)
        else:
            phase, sweep = max((when[s][:2] for s in n.src), default=(0, 0))
            ends = n.op in ACROSS or (n.op is Op.CAT and n in pulled)
            when[n] = (phase, sweep + 1 if ends else sweep, n.width)
    return when


def sides(node: Node) -> list[Node]:
    """What a product reads of each row, from memory."""
    return [base(s) for s in node.src if s.op not in (Op.SHARED, Op.CONST)]


def choose_memory(made: Plan) -> None:
    """Which values lie in memory: outputs, states, sides of products, and columns side by side."""
    inside = set(made.inside)
    partial = {onto(n) for n in made.inside}
    read = {s for n in made.inside if n.op in PRODUCTS for s in sides(n)}
    for name, node in made.loop.carried.items():
        if node in inside and node.op not in PRODUCTS:
            made.home.setdefault(node, Place("state", name))
    for n in made.stored:
        if n.op not in PRODUCTS or straight(made, n):
            made.home.setdefault(n, Place("stored", n))
    pulled = {s for n in made.inside if n.op not in PRODUCTS for s in n.src}
    for n in made.inside:
        if n not in partial and (n.op in PRODUCTS or n in read or (n.op is Op.CAT and n in pulled)):
            keep(made, n)
            made.home.update(dict.fromkeys(chain(n), made.home[n]))


def straight(made: Plan, node: Node) -> bool:
    """A product that is written to its output sequence tile by tile, with no temporary rows between."""
    return made.wide and node.op is Op.MATMUL and node in made.stored and node.width % made.panel == 0


def keep(made: Plan, node: Node) -> None:
    """Give a value temporary rows, if it has no other home."""
    if node not in made.home:
        made.home[node] = Place("temp", node)
        made.temps.append(node)


def schedule(made: Plan, when: Mapping[Node, Moment]) -> None:
    """Lay out phases and sweeps in order."""
    made.phases = [Phase() for _ in range(1 + max((when[n][0] for n in made.inside), default=0))]
    sweeps: dict[Moment, Sweep] = {}

    def at(phase: int, sweep: int, width: int) -> Sweep:
        return sweeps.setdefault((phase, sweep, width), Sweep((phase, sweep, width)))

    def ready(n: Node) -> tuple[int, int]:
        return max((when[s][:2] for s in n.src), default=(0, 0))

    for n in made.inside:
        if n.op in PRODUCTS:
            made.phases[when[n][0]].products.append(n)
            made.written[n] = (when[n][0], -1, 0)
        elif n.op in ACROSS:
            at(*ready(n), n.src[0].width).sums.append(n)
            made.written[n] = (*ready(n), n.src[0].width)
        elif n.op in TOTALS:
            at(*ready(n), n.width).totals.append(n)
        elif n in made.home:
            made.written[n] = (*ready(n), n.width)
        for place in places(made, n):
            low = 0
            for piece in n.src if n.op is Op.CAT else (n,):
                moment = when.get(piece, (0, 0, 0)) if n.op in {Op.CAT, *PRODUCTS, *ACROSS} else ready(n)
                at(moment[0], moment[1], piece.width).writes.append((piece, Place(place.kind, place.key, low)))
                low += piece.width
    for name, node in made.loop.carried.items():
        if node not in when or node not in set(made.inside):
            at(0, 0, node.width).writes.append((node, Place("state", name)))
    for moment in sorted(sweeps):
        made.phases[moment[0]].sweeps.append(sweeps[moment])


def places(made: Plan, node: Node) -> list[Place]:
    """Everywhere that a value is written to by a sweep."""
    found = [Place("state", name) for name, n in made.loop.carried.items() if n is node]
    found += [Place("stored", node)] * (node in made.stored and not straight(made, node))
    return found + [Place("temp", node)] * (node in made.temps and node.op not in PRODUCTS | ACROSS)


def needs(made: Plan, sweep: Sweep) -> tuple[list[Node], list[Node]]:
    """(values that a sweep reads from memory, values that it computes), sources first."""
    loads: dict[Node, None] = {}
    computed: dict[Node, None] = {}
    reduced = {n for phase in made.phases for s in phase.sweeps if s.moment < sweep.moment for n in s.sums}

    def at_hand(n: Node) -> bool:
        same_row = n in reduced and made.written[n][0] == sweep.moment[0]
        return n.op is Op.CONST or same_row

    def there(n: Node) -> bool:
        return n.op in LEAVES or n in made.ahead or (n in made.home and made.written[n] < sweep.moment)

    roots = [node for node, _ in sweep.writes] + [n.src[0] for n in [*sweep.sums, *sweep.totals]]
    for n in order(roots, lambda n: at_hand(n) or there(n)):
        if not at_hand(n):
            (loads if there(n) else computed)[n] = None
    return list(loads), list(computed)


def missing(made: Plan) -> list[Node]:
    """Values not in memory that should be: dear ones that more than one sweep would compute, sums of earlier phases."""
    count: dict[Node, int] = {}
    for phase in made.phases:
        for sweep in phase.sweeps:
            for n in needs(made, sweep)[1]:
                count[n] = count.get(n, 0) + 1
    again = [n for n, times in count.items() if n.op in ACROSS or (times > 1 and n.op in EXPENSIVE)]
    return [n for n in again if n not in made.home and not (made.period and single(n))]
