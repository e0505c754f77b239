"""A model of the protocol of venues, groups, batches and runs, with everything that may happen.

A move is one thing that is atomic in reality: a Redis command, a PostgreSQL transaction (or its
begin and its commit, since the fences are held in between), a decision of Airflow, a fault, a
click. A pause has no state of its own, because any process may be arbitrarily slow; it does harm
only when its leases expire. Each clause (CLAUSES) can be removed.

The properties:

P1  only the newest token writes a venue;
P2  a venue that is skipped, or of a run that ends green, holds the requested or newer results;
P3  nothing is computed twice without a click;
P4  a success is not computed again unless it was cleared;
P5  data that end well come from one computation;
P6  an older as_of never replaces a newer one;
P7  data and history agree;
P8  an end can be reached from every state (see search.py);
P9  no process draws the token of another that holds its lease;
P10 a venue that always fails, or always kills its worker, does not block the others;
P11 a venue that ended well is not reported as failed.
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable, Iterator
from typing import Any

#: batches: the venues of each batch. edit: the rules that a clear of the whole run finds.
Run = namedtuple("Run", "name as_of rules batches tries force edit", defaults=(2, False, None))
#: kinds, clicks: the kinds that happen, one letter each (see Model.faults and Model.clicks).
#: once: nothing may be computed twice. group: the most venues per transaction. fails: venues whose
#: data are always bad. kills: venues that always kill their worker.
Scenario = namedtuple(
    "Scenario",
    "name runs venues steps faults kinds ops clicks once group fails kills",
    defaults=(False, 1, (), ()),
)
#: By venue: fence, a token; lock, a process, or GONE for a backend whose client is dead; data, a
#: Part for each step; ckpt, (as_of, rules, round, step, plan); rows, the history; lease, (process,
#: as_of, rules). By run: tab, its rows of jobs.batch; plan, (try, rules, number); air, Airflow's
#: view.
State = namedtuple("State", "fence lock data ckpt rows lease tab plan air procs faults ops seq")
Part = namedtuple("Part", "as_of rules tok force seq")
#: alone: opened for a single venue. gen: how often a user had cleared its batch, for checks only.
Row = namedtuple("Row", "tok pid as_of rules rnd seq out gen alone")
#: well: 0, or 1 + the clear number when it ended well.
Tab = namedtuple("Tab", "rnd well again gen")
#: States: n(ot started), r(unning), s(uccess), f(ailed); for finish also G(reen) and R(ed).
Air = namedtuple("Air", "plan plan_n fin clears cfg batches")
#: mark: the fences when a success was cleared, for checks only.
Bat = namedtuple("Bat", "st n maxt gen mark")
#: todo: venues that wait. grp: venues in work together, all with the same next step k.
Process = namedtuple("Process", "pid pc todo grp rnd rules seq gen clears k bad lost redo maxt")
#: tok: 0, or the token of an open row. how: "", "solo" (alone), "stale" (to be closed).
Waiting = namedtuple("Waiting", "v tok seq how", defaults=(0, 0, ""))
Member = namedtuple("Member", "v tok seq")

# Not -1 and -2, because Python hashes them alike.
PLAN, FINISH = -3, -5
GONE = "gone"
NOBODY = Part(0, 0, 0, False, 0)
WELL = ("succeeded", "skipped")
AT_WORK = ("DRAW", "LOOK", "INSERT", "ENTER", "TX")

CLAUSES = {
    "clear_number": "a batch is opened again only if Airflow counted a clear since it ended well",
    "fresh_round": "in a later round or under force only a success of this batch and round counts",
    "rules_order": "same as_of, other rules: the later plan wins",
    "lazy_round": "a plan opens no round; the first try after it does",
    "plan_order": "an earlier plan try never overwrites a later one",
    "draw_cas": "housekeeping draws only if the row still has the newest token",
    "finish_asks": "finish also asks Airflow whether each batch succeeded",
    "ckpt_blocks": "under a checkpoint of other work, the latest success does not count",
    "fence": "enter compares the token",
    "look": "after the draw, the lease is checked",
    "take_later": "an earlier try never takes the lease from a later one",
    "reconcile_lease": "housekeeping leaves an attempt alone that holds its lease",
    "rounds": "rounds are counted, not tries",
    "close_in_commit": "the last step's transaction closes the row",
    "close_before_release": "the row is closed before the lease is released",
    "cas_close": "a failure closes only a running row",
    "check_after_draw": "history is read after the token is drawn",
    "check_in_lock": "history is read under the lock",
    "newer": "an older as_of does not replace newer results",
    "lease_excl": "a held lease is not taken",
    "lost": "a process that lost the lease opens no transaction",
    "ckpt_tag": "a checkpoint of other work is discarded",
    "reconcile_draw": "housekeeping fences off the attempts that it closes",
    "cmp_delete": "a process releases only its own lease",
    "latest": "only the latest success counts",
    "ckpt_round": "a checkpoint of another round is discarded",
    "renew": "a lease that is gone is set again",
    "well_round": "a good end is noted only for its own round",
    "each_fence": "enter compares each token of a group",
    "ask_each": "history is read for each venue of a group",
    "same_step": "a venue at another step leaves its group",
    "singles": "after a group failed, each of its venues is done by itself",
    "read_rows": "after a lost answer to COMMIT the rows are read",
    "bad_alone": "a venue with an attempt in this round that did not succeed is done alone",
    "killer_last": "a venue that failed alone in this round comes last",
}
PROTOCOL = frozenset(CLAUSES)


class ViolationError(Exception):
    """A property does not hold."""


def put(items: tuple[Any, ...], index: int, item: Any) -> tuple[Any, ...]:
    """Replace one item."""
    return (*items[:index], item, *items[index + 1 :])


class Model:
    """The states of a scenario, and the moves between them."""

    def __init__(
        self, scenario: Scenario, on: frozenset[str] = PROTOCOL, only: set[str] | None = None
    ) -> None:
        """Take the active clauses, and the properties to check; None means all."""
        self.c, self.on, self.only = scenario, on, only

    def need(self, ok: Any, prop: str, message: Callable[[], str]) -> None:
        """Raise if a property does not hold."""
        if not ok and (self.only is None or prop in self.only):
            raise ViolationError(f"{prop}: {message()}")

    def initial(self) -> State:
        """Return the initial state."""
        venues, runs = self.c.venues, self.c.runs
        return State(
            fence=(0,) * venues,
            lock=(None,) * venues,
            data=((NOBODY,) * self.c.steps,) * venues,
            ckpt=(None,) * venues,
            rows=((),) * venues,
            lease=(None,) * venues,
            tab=tuple(tuple(Tab(0, 0, True, 0) for _ in run.batches) for run in runs),
            plan=(None,) * len(runs),
            air=tuple(
                Air(
                    "n",
                    0,
                    "n",
                    0,
                    run.rules,
                    tuple(Bat("n", 0, run.tries, 0, ()) for _ in run.batches),
                )
                for run in runs
            ),
            procs=(),
            faults=0,
            ops=0,
            seq=0,
        )

    def ended(self, s: State) -> bool:
        """Return whether all runs are over."""
        return not s.procs and all(air.fin in "GR" for air in s.air)

    def successors(self, s: State) -> Iterator[tuple[str, bool, State]]:
        """Yield each next move: its label, whether it is neither fault nor click, the state."""
        for p in s.procs:
            for label, after in self.moves(s, p):
                yield f"{self.name(p.pid)}: {label}", True, after
        for label, after in self.airflow(s):
            yield label, True, after
        for label, after in self.faults(s):
            yield f"FAULT {label}", False, after
        for label, after in self.clicks(s):
            yield f"CLICK {label}", False, after

    # helpers -----------------------------------------------------------------------------------

    def name(self, pid: Any) -> str:
        run, batch, number = pid
        what = {PLAN: "plan", FINISH: "finish"}.get(batch, f"b{batch}")
        return f"{self.c.runs[run].name}.{what}#{number}"

    def me(self, p: Process) -> Any:
        return (p.pid, self.c.runs[p.pid[0]].as_of, p.rules)

    def current(self, s: State, p: Process) -> bool:
        run, batch, number = p.pid
        air = s.air[run]
        if batch == PLAN:
            return (air.plan_n, air.plan) == (number, "r")
        return batch >= 0 and air.batches[batch][:2] == ("r", number)

    def holding(self, p: Process) -> list[int]:
        """Return the venues whose leases a process keeps."""
        if p.pid[1] < 0:
            return []
        return [m.v for m in p.grp] + [w.v for w in p.todo if w.tok or w.how == "solo"]

    def setp(self, s: State, p: Process, after: Process | None, **changes: Any) -> State:
        others = tuple(x for x in s.procs if x.pid != p.pid)
        procs = sorted((*others, after) if after else others, key=lambda x: x.pid)
        return s._replace(procs=tuple(procs), **changes)

    def bat(self, s: State, run: int, batch: int, **changes: Any) -> State:
        batches = s.air[run].batches
        changed = put(batches, batch, batches[batch]._replace(**changes))
        return self.setair(s, run, batches=changed)

    def setair(self, s: State, run: int, **changes: Any) -> State:
        return s._replace(air=put(s.air, run, s.air[run]._replace(**changes)))

    def close(self, s: State, v: int, tok: int, out: str, *, cas: bool = True) -> State:
        """UPDATE venue_run SET outcome WHERE token = … [AND outcome = 'running']."""
        rows = tuple(
            row._replace(out=out) if row.tok == tok and (row.out == "running" or not cas) else row
            for row in s.rows[v]
        )
        return s._replace(rows=put(s.rows, v, rows))

    def latest(self, s: State, v: int) -> Row | None:
        good = [row for row in s.rows[v] if row.out == "succeeded"]
        return max(good, key=lambda row: row.tok) if good else None

    def vouched(self, s: State, v: int, result: Any) -> int:
        """Return the latest plan that made this result or found it done."""
        same = (
            row.seq
            for row in s.rows[v]
            if row.out in WELL and (row.as_of, row.rules) == (result.as_of, result.rules)
        )
        return max(same, default=0)

    def verdict(self, s: State, p: Process, v: int) -> str | None:
        """Return why the first transaction skips a venue; None means that there is work to do."""
        run, last, on = self.c.runs[p.pid[0]], self.latest(s, v), self.on
        if last is None:
            return None
        if "ckpt_blocks" in on and s.ckpt[v] and s.ckpt[v][:2] != (last.as_of, last.rules):
            return None  # other unfinished work overwrites that success
        proof = [last] if "latest" in on else [r for r in s.rows[v] if r.out == "succeeded"]
        for row in proof:
            if (row.as_of, row.rules) == (run.as_of, p.rules):
                own = row.pid[:2] == p.pid[:2]
                if "fresh_round" not in on:
                    ok = not (own and row.rnd < p.rnd) and not run.force
                elif run.force or p.rnd > 1:
                    ok = own and row.rnd >= p.rnd
                else:
                    ok = True
                if ok:
                    return "already done"
        if "newer" in on and not run.force:
            if last.as_of > run.as_of:
                return "newer results stand"
            other_rules = last.as_of == run.as_of and last.rules != p.rules
            if "rules_order" in on and other_rules and self.vouched(s, v, last) > p.seq:
                return "newer results stand"
        return None

    # properties --------------------------------------------------------------------------------

    def check_skip(self, s: State, p: Process, v: int, why: str) -> None:
        as_of = self.c.runs[p.pid[0]].as_of
        for d in s.data[v]:
            newer = d.as_of > as_of or (d.as_of == as_of and self.vouched(s, v, d) > p.seq)
            mine = (d.as_of, d.rules) == (as_of, p.rules)
            self.need(
                (mine or (why == "newer results stand" and newer)) and d[:2] == s.data[v][-1][:2],
                "P2",
                lambda: f"{self.name(p.pid)} skips venue {v} ({why}); its data are {s.data[v]}",
            )

    def check_work(self, s: State, p: Process, v: int) -> None:
        last = self.latest(s, v)
        done = (
            last is not None
            and (last.pid[:2], last.gen) == (p.pid[:2], p.gen)
            and all(d[:2] == last[2:4] for d in s.data[v])
        )
        self.need(not done, "P4", lambda: f"{self.name(p.pid)} computes venue {v} again")

    def check_success(self, s: State, p: Process, v: int, tok: int) -> None:
        run = self.c.runs[p.pid[0]]
        self.need(
            all((d.as_of, d.rules) == (run.as_of, p.rules) for d in s.data[v]),
            "P5",
            lambda: f"{self.name(p.pid)} ends well with mixed data {s.data[v]}",
        )
        good = [row for row in s.rows[v] if row.out == "succeeded" and row.tok != tok]
        last = max(good, key=lambda row: row.tok) if good else None
        if last and not run.force and not s.ckpt[v]:
            self.need(
                last.as_of <= run.as_of,
                "P6",
                lambda: f"{self.name(p.pid)} puts as_of {run.as_of} over {last.as_of}",
            )
        if self.c.once:
            twice = any((row.as_of, row.rules) == (run.as_of, p.rules) for row in good)
            self.need(
                s.ops > 0 or not twice,
                "P3",
                lambda: f"{self.name(p.pid)} computes venue {v} a second time",
            )

    def invariant(self, s: State) -> None:
        """Check the properties of a single state."""
        for v in range(self.c.venues):
            token = s.data[v][-1].tok
            if token:
                self.need(
                    any(row.tok == token and row.out == "succeeded" for row in s.rows[v]),
                    "P7",
                    lambda v=v, token=token: f"venue {v}: data of {token}, its row not succeeded",
                )
            for row in s.rows[v]:
                if row.out in ("failed", "dead") and row.tok == s.fence[v]:
                    alive = any(
                        member[:2] == (v, row.tok) and p.pc in ("INSERT", "ENTER", "TX")
                        for p in s.procs
                        for member in p.grp
                    )
                    self.need(
                        not alive,
                        "P7",
                        lambda row=row: (
                            f"row {row.tok} was closed, but its attempt can still commit"
                        ),
                    )
        for p in s.procs:
            self.need(
                p.redo <= s.faults + s.ops + 2,
                "P8",
                lambda p=p: f"{self.name(p.pid)} starts venues over forever",
            )

    def check_green(self, s: State, r: int) -> None:
        run, (_, rules, seq) = self.c.runs[r], s.plan[r]
        for b, venues in enumerate(run.batches):
            mark = s.air[r].batches[b].mark
            for v in venues:
                for d in s.data[v]:
                    mine = (d.as_of, d.rules) == (run.as_of, rules) and d.tok
                    later = d.as_of == run.as_of and max(d.seq, self.vouched(s, v, d)) > seq
                    self.need(
                        mine or d.as_of > run.as_of or later or d.force,
                        "P2",
                        lambda v=v: f"{run.name} ends green, venue {v} holds {s.data[v]}",
                    )
                    if mark and mine and not d.force:
                        self.need(
                            d.tok > mark[v],
                            "P4",
                            lambda v=v: f"{run.name}: the cleared success of {v} was not redone",
                        )

    def check_others(self, s: State, r: int) -> None:
        bad = {*self.c.fails, *self.c.kills}
        if not bad or s.faults or s.ops:
            return
        for v in [v for venues in self.c.runs[r].batches for v in venues if v not in bad]:
            self.need(
                any(row.pid[0] == r and row.out in WELL for row in s.rows[v]),
                "P10",
                lambda v=v: f"{self.c.runs[r].name} is over, but venue {v} was blocked",
            )

    # a batch's process -------------------------------------------------------------------------

    def moves(self, s: State, p: Process) -> Iterator[tuple[str, State]]:
        """Yield the next moves of a process."""
        if p.pid[1] < 0:
            yield from self.housekeeping(s, p)
            return
        yield from self.renewals(s, p)
        move = {
            "START": self.start,
            "LEASE": self.lease,
            "DRAW": self.draw,
            "LOOK": self.look,
            "INSERT": self.insert,
            "ENTER": self.enter,
            "TX": self.commit,
            "READ": self.read_rows,
            "FAIL": self.fail,
            "CLOSE": self.close_late,
            "RELEASE": self.release,
            "MARK": self.mark,
            "EXIT": self.leave,
        }[p.pc]
        yield from move(s, p)

    def start(self, s: State, p: Process) -> Iterator[tuple[str, State]]:
        r, b, _ = p.pid
        t, on = s.tab[r][b], self.on
        if "rounds" not in on:  # instead of the clear number, a grown max_tries counts
            again = t.again or 0 < t.well < p.maxt
            t = t._replace(well=p.maxt)
        else:
            at = 1 + p.clears if "clear_number" in on else 99
            again = t.again or (t.well and at > t.well)
            # a user cleared what ended well in PostgreSQL, whatever its state in Airflow
            cleared = bool(t.well and 1 + p.clears > t.well)
            t = t._replace(well=0 if again else t.well, gen=max(p.gen, t.gen + cleared))
        t = Tab(t.rnd + 1 if again else t.rnd, t.well, False, max(t.gen, p.gen))
        _, rules, seq = s.plan[r]
        q = p._replace(pc="LEASE", rnd=t.rnd, gen=t.gen, rules=rules, seq=seq)
        yield "start", self.setp(s, p, q, tab=put(s.tab, r, put(s.tab[r], b, t)))

    def mark(self, s: State, p: Process) -> Iterator[tuple[str, State]]:
        r, b, _ = p.pid
        t = s.tab[r][b]
        if (t.rnd == p.rnd or "well_round" not in self.on) and "rounds" in self.on:
            t = t._replace(well=1 + p.clears)
        tab = put(s.tab, r, put(s.tab[r], b, t))
        yield "notes batch ended well", self.setp(s, p, p._replace(pc="EXIT"), tab=tab)

    def leave(self, s: State, p: Process) -> Iterator[tuple[str, State]]:
        r, b, n = p.pid
        after, bat = self.setp(s, p, None), s.air[r].batches[b]
        if (bat.st, bat.n) == ("r", n):
            retries = p.bad == 1 and n < bat.maxt
            after = self.bat(after, r, b, st="s" if not p.bad else "n" if retries else "f")
        yield "exit " + ("failed" if p.bad else "well"), after

    def renewals(self, s: State, p: Process) -> Iterator[tuple[str, State]]:
        """Yield the moves of the renewal thread, which runs from the lease on."""
        for v in self.holding(p):
            at_work = p.pc in AT_WORK or v not in [m.v for m in p.grp]
            if not at_work or s.lease[v] == self.me(p) or v in p.lost:
                continue
            if s.lease[v] is not None:
                lost = tuple(sorted((*p.lost, v)))
                yield f"v{v} renewal finds lease lost", self.setp(s, p, p._replace(lost=lost))
            elif "renew" in self.on:
                yield f"v{v} renews gone lease", s._replace(lease=put(s.lease, v, self.me(p)))

    def after(self, p: Process, todo: tuple[Waiting, ...], **changes: Any) -> Process:
        """Return the process after a group: it takes the next venue, or ends the batch."""
        bad = changes.get("bad", p.bad)
        pc = "LEASE" if todo else "EXIT" if bad else "MARK"
        lost = tuple(v for v in p.lost if v in [w.v for w in todo if w.tok])
        return p._replace(pc=pc, todo=todo, grp=(), k=-1, lost=lost, **changes)

    def worse(self, p: Process, bad: int) -> int:
        """Return the worst outcome: 0 well, 1 a retry may help, 2 a retry cannot help."""
        return 1 if 1 in (p.bad, bad) else max(p.bad, bad)

    def last_here(self, s: State, p: Process, v: int) -> Row | None:
        """Return the last row of a venue in this batch and round."""
        own = [r for r in s.rows[v] if (r.pid[:2], r.rnd) == (p.pid[:2], p.rnd)]
        return own[-1] if own else None

    def is_bad(self, s: State, p: Process, v: int) -> bool:
        row = self.last_here(s, p, v)
        return row is not None and row.out not in WELL

    def failed_alone(self, s: State, p: Process, v: int) -> bool:
        row = self.last_here(s, p, v)
        return row is not None and row.alone and row.out not in WELL

    def lease(self, s: State, p: Process) -> Iterator[tuple[str, State]]:
        on, first, rest = self.on, p.todo[0], p.todo[1:]
        v = first.v
        if first.tok:  # its token is drawn and its row is open
            member = (Member(v, first.tok, first.seq),)
            if first.how == "stale":
                q = p._replace(pc="FAIL", todo=rest, grp=member, k=1)
                yield f"v{v} LeaseLost", self.setp(s, p, q)
                return
            yield f"v{v} by itself", self.setp(s, p, p._replace(pc="ENTER", todo=rest, grp=member))
            return
        permanent = [r for r in s.rows[v] if r.out == "permanent"]
        if any((r.pid[:2], r.rnd) == (p.pid[:2], p.rnd) for r in permanent):
            q = self.after(p, rest, bad=self.worse(p, 2), redo=0)
            yield f"v{v} failed for good in this round", self.setp(s, p, q)
            return
        waits_for_others = "killer_last" in on and self.failed_alone(s, p, v)
        if waits_for_others and any(not self.failed_alone(s, p, w.v) for w in rest):
            yield f"v{v} failed alone: last", self.setp(s, p, p._replace(todo=(*rest, first)))
            return
        wanted = [first]
        if not first.how and not ("bad_alone" in on and self.is_bad(s, p, v)):
            for w in rest[: self.c.group - 1]:
                if w.tok or w.how or ("bad_alone" in on and self.is_bad(s, p, w.v)):
                    break
                wanted.append(w)
        taken = [w for w in wanted if self.may_take(s, p, w.v)]
        if not taken:
            same_work = s.lease[v][1:] == self.me(p)[1:]
            if same_work and rest:
                q = p._replace(todo=(*rest, first))
                yield f"v{v} same work elsewhere, others first", self.setp(s, p, q)
            return
        k = -1
        if "check_after_draw" not in on and self.verdict(s, p, taken[0].v) is None:
            k = -3  # history was read before the token was drawn
        lease = s.lease
        for w in taken:
            lease = put(lease, w.v, self.me(p))
        left = tuple(w for w in wanted if w not in taken)
        q = p._replace(
            pc="DRAW",
            todo=p.todo[len(wanted) :] + left,
            grp=tuple(Member(w.v, 0, p.seq) for w in taken),
            lost=tuple(v for v in p.lost if v not in [w.v for w in taken]),
            k=k,
        )
        yield f"takes leases of {[w.v for w in taken]}", self.setp(s, p, q, lease=lease)

    def may_take(self, s: State, p: Process, v: int) -> bool:
        held = s.lease[v]
        if held is None or held == self.me(p) or "lease_excl" not in self.on:
            return True
        (run, batch, number), mine = held[0], p.pid
        if (run, batch) != mine[:2]:
            return False
        return number < mine[2] or ("take_later" not in self.on and number != mine[2])

    def draw(self, s: State, p: Process) -> Iterator[tuple[str, State]]:
        if any(s.lock[m.v] is not None for m in p.grp):
            return
        fence = s.fence
        for m in p.grp:
            fence = put(fence, m.v, fence[m.v] + 1)
        grp = tuple(m._replace(tok=fence[m.v]) for m in p.grp)
        q = p._replace(pc="LOOK", grp=grp)
        yield f"draws tokens {[(m.v, m.tok) for m in grp]}", self.setp(s, p, q, fence=fence)

    def look(self, s: State, p: Process) -> Iterator[tuple[str, State]]:
        ours = tuple(m for m in p.grp if s.lease[m.v] == self.me(p) or "look" not in self.on)
        again = tuple(Waiting(m.v) for m in p.grp if m not in ours)
        todo = p.todo + again
        redo = p.redo + bool(again)
        if ours:
            q = p._replace(pc="INSERT", grp=ours, todo=todo, redo=redo)
        else:
            q = self.after(p, todo, redo=redo)
        yield f"leases: {len(ours)} of {len(p.grp)} are ours", self.setp(s, p, q)

    def insert(self, s: State, p: Process) -> Iterator[tuple[str, State]]:
        as_of, alone = self.c.runs[p.pid[0]].as_of, len(p.grp) == 1
        rows, k = s.rows, p.k
        for m in p.grp:
            row = Row(m.tok, p.pid, as_of, p.rules, p.rnd, p.seq, "running", p.gen, alone)
            rows = put(rows, m.v, (*rows[m.v], row))
        if "check_in_lock" not in self.on and self.verdict(s, p, p.grp[0].v) is None:
            k = -3  # history was read outside the lock
        yield "history rows", self.setp(s, p, p._replace(pc="ENTER", k=k), rows=rows)

    def enter(self, s: State, p: Process) -> Iterator[tuple[str, State]]:
        on = self.on
        lost = [m for m in p.grp if m.v in p.lost and "lost" in on]
        busy = [m for m in p.grp if m not in lost and s.lock[m.v] is not None]
        if busy:
            return
        stale = [m for m in p.grp if "fence" in on and m not in lost and s.fence[m.v] != m.tok]
        if "each_fence" not in on and len(p.grp) > 1:
            stale = [m for m in stale if m == p.grp[0]]
        stale += lost
        if len(p.grp) == 1 and stale:
            yield f"v{p.grp[0].v} LeaseLost", self.setp(s, p, p._replace(pc="FAIL", k=1))
            return
        todo = tuple(Waiting(*m, "stale") for m in stale)
        inside = [m for m in p.grp if m not in stale]
        steps = {m.v: p.k for m in inside}
        if p.k < 0:
            for m in inside:
                asks = p.k == -1 and ("ask_each" in on or m == inside[0])
                why = self.verdict(s, p, m.v) if asks else None
                if why is None:
                    self.check_work(s, p, m.v)
                    steps[m.v] = self.next_step(s, p, m.v)
                elif len(p.grp) == 1:
                    self.check_skip(s, p, m.v, why)
                    closed = self.close(s, m.v, m.tok, "skipped")
                    yield f"v{m.v} skipped ({why})", self.setp(closed, p, p._replace(pc="RELEASE"))
                    return
                else:
                    del steps[m.v]
        k = next(iter(steps.values()), -1)
        stay = [m for m in inside if m.v in steps and (steps[m.v] == k or "same_step" not in on)]
        todo += tuple(Waiting(*m) for m in inside if m not in stay)
        todo += p.todo
        if not stay:
            yield "no venue stays in the group", self.setp(s, p, self.after(p, todo))
            return
        rows, lock, grp = s.rows, s.lock, []
        for m in stay:
            lock = put(lock, m.v, p.pid)
            seq = m.seq
            if p.k < 0 and k:  # resumed work counts as that of the later plan
                seq = max(seq, s.ckpt[m.v][4]) if s.ckpt[m.v] else seq
                own = tuple(r._replace(seq=seq) if r.tok == m.tok else r for r in rows[m.v])
                rows = put(rows, m.v, own)
            grp.append(m._replace(seq=seq))
        q = p._replace(pc="TX", k=k, grp=tuple(grp), todo=todo)
        yield f"enter step {k} of {[m.v for m in stay]}", self.setp(s, p, q, lock=lock, rows=rows)

    def next_step(self, s: State, p: Process, v: int) -> int:
        ckpt, tag = s.ckpt[v], (self.c.runs[p.pid[0]].as_of, p.rules, p.rnd)
        if ckpt and "ckpt_round" not in self.on:
            tag = (*tag[:2], ckpt[2])
        return ckpt[3] if ckpt and (ckpt[:3] == tag or "ckpt_tag" not in self.on) else 0

    def commit(self, s: State, p: Process) -> Iterator[tuple[str, State]]:
        at_work = [m.v for m in p.grp]
        if any(v in self.c.kills for v in at_work):
            yield f"dies with {at_work}", self.killed(s, p)
        elif any(v in self.c.fails for v in at_work):
            yield f"bad data in {at_work}", self.failed(s, p, 2)
        else:
            yield f"commit step {p.k} of {at_work}", self.committed(s, p)

    def committed(self, s: State, p: Process) -> State:
        run, last = self.c.runs[p.pid[0]], p.k == self.c.steps - 1
        in_commit = {"close_in_commit", "close_before_release"} <= self.on
        for m in p.grp:
            self.need(
                m.tok == s.fence[m.v],
                "P1",
                lambda m=m: f"{self.name(p.pid)} writes venue {m.v} with an old token",
            )
            part = Part(run.as_of, p.rules, m.tok, run.force, m.seq)
            s = s._replace(data=put(s.data, m.v, put(s.data[m.v], p.k, part)))
            if last:
                self.check_success(s, p, m.v, m.tok)
                s = s._replace(ckpt=put(s.ckpt, m.v, None))
                if in_commit:
                    s = self.close(s, m.v, m.tok, "succeeded")
            else:
                ckpt = (run.as_of, p.rules, p.rnd, p.k + 1, m.seq)
                s = s._replace(ckpt=put(s.ckpt, m.v, ckpt))
        s = self.unlock(s, p)
        if not last:
            return self.setp(s, p, p._replace(pc="ENTER", k=p.k + 1))
        release = in_commit or "close_before_release" not in self.on
        return self.setp(s, p, p._replace(pc="RELEASE" if release else "CLOSE"))

    def unlock(self, s: State, p: Process) -> State:
        return s._replace(lock=tuple(None if held == p.pid else held for held in s.lock))

    def failed(self, s: State, p: Process, kind: int) -> State:
        """Return the state after a rollback: a single venue fails; a group is done one by one."""
        s = self.unlock(s, p)
        if len(p.grp) == 1 or "singles" not in self.on:
            return self.setp(s, p, p._replace(pc="FAIL", k=kind))
        return self.one_by_one(s, p)

    def one_by_one(self, s: State, p: Process) -> State:
        todo = tuple(Waiting(*m, "solo") for m in p.grp) + p.todo
        return self.setp(s, p, self.after(p, todo))

    def read_rows(self, s: State, p: Process) -> Iterator[tuple[str, State]]:
        """Read the rows after the connection broke: venues that have not succeeded fail."""
        outs = {m.v: r.out for m in p.grp for r in s.rows[m.v] if r.tok == m.tok}
        failed = [m for m in p.grp if outs[m.v] != "succeeded" or "read_rows" not in self.on]
        for m in failed:
            self.need(
                outs[m.v] != "succeeded",
                "P11",
                lambda m=m: f"{self.name(p.pid)} reports venue {m.v} as failed",
            )
            s = self.close(s, m.v, m.tok, "failed", cas="cas_close" in self.on)
        bad = self.worse(p, 1) if failed else p.bad
        q = p._replace(pc="RELEASE", bad=bad, k=-1)
        yield f"reads the rows: {[m.v for m in failed]} failed", self.setp(s, p, q)

    def fail(self, s: State, p: Process) -> Iterator[tuple[str, State]]:
        """Close the rows after a rollback; k is 1 if a retry may help, else 2."""
        for m in p.grp:
            out = "permanent" if p.k == 2 else "failed"
            s = self.close(s, m.v, m.tok, out, cas="cas_close" in self.on)
        q = p._replace(pc="RELEASE", bad=self.worse(p, p.k), k=-1)
        yield f"closes rows of {[m.v for m in p.grp]}: failed", self.setp(s, p, q)

    def close_late(self, s: State, p: Process) -> Iterator[tuple[str, State]]:
        for m in p.grp:
            s = self.close(s, m.v, m.tok, "succeeded")
        yield "closes rows: succeeded", self.setp(s, p, self.after(p, p.todo, redo=0))

    def release(self, s: State, p: Process) -> Iterator[tuple[str, State]]:
        lease = s.lease
        for m in p.grp:
            if lease[m.v] == self.me(p) or "cmp_delete" not in self.on:
                lease = put(lease, m.v, None)
        late = "close_before_release" not in self.on and any(
            s.data[m.v][-1].tok == m.tok for m in p.grp
        )
        q = p._replace(pc="CLOSE") if late else self.after(p, p.todo, redo=0)
        yield f"releases {[m.v for m in p.grp]}", self.setp(s, p, q, lease=lease)

    # plan and finish ---------------------------------------------------------------------------

    def housekeeping(self, s: State, p: Process) -> Iterator[tuple[str, State]]:
        """Close rows left running (plan: of all runs, finish: of its own), then plan or judge."""
        r, b, n = p.pid
        if p.pc == "EXIT":
            over, air = self.setp(s, p, None), s.air[r]
            if (air.plan, air.plan_n) == ("r", n):
                over = self.setair(over, r, plan="s")
            yield "exit", over
        elif p.pc == "REC":
            left = next(
                (
                    (v, row)
                    for v in range(self.c.venues)
                    for row in s.rows[v]
                    if row.out == "running"
                    and (v, row.tok) not in p.todo
                    and (b == PLAN or row.pid[0] == r)
                ),
                None,
            )
            if left is None:
                yield from self.write_plan(s, p) if b == PLAN else self.judge(s, p)
                return
            v, row = left
            lease = s.lease[v]
            held = lease is not None and lease[0] == row.pid and "reconcile_lease" in self.on
            q = p._replace(pc="REC" if held else "RECDRAW", todo=(*p.todo, (v, row.tok)))
            yield (
                f"row v{v}/{row.tok}: its lease is {'held' if held else 'gone'}",
                self.setp(s, p, q),
            )
        elif p.pc == "RECDRAW":
            yield from self.shut_out(s, p)
        elif p.pc == "RECCLOSE":
            v, tok = p.todo[-1]
            closed = self.close(s, v, tok, "dead")
            yield f"closes row v{v}/{tok}", self.setp(closed, p, p._replace(pc="REC"))

    def shut_out(self, s: State, p: Process) -> Iterator[tuple[str, State]]:
        v, tok = p.todo[-1]
        done, label = p._replace(pc="REC"), f"closes row v{v}/{tok}"
        if "reconcile_draw" not in self.on:
            yield label, self.setp(self.close(s, v, tok, "dead"), p, done)
        elif s.lock[v] is not None:
            return
        elif "draw_cas" in self.on:  # one transaction: UPDATE fence … WHERE token = the row's
            fence = s.fence[v] + (s.fence[v] == tok)
            self.robbed(s, p, v, fence)
            closed = self.close(s, v, tok, "dead")
            yield label, self.setp(closed, p, done, fence=put(s.fence, v, fence))
        else:
            fence = s.fence[v] + 1
            self.robbed(s, p, v, fence)
            q = p._replace(pc="RECCLOSE")
            yield f"draws token {fence} of v{v}", self.setp(s, p, q, fence=put(s.fence, v, fence))

    def robbed(self, s: State, p: Process, v: int, fence: int) -> None:
        if fence == s.fence[v]:
            return
        for q in s.procs:
            owner = any(m[:2] == (v, s.fence[v]) for m in q.grp)
            if owner and self.current(s, q) and v not in q.lost:
                may_expire = set("EF") & set(self.c.kinds)
                at_work = s.lease[v] == self.me(q) and q.pc in ("INSERT", "ENTER", "TX")
                self.need(
                    may_expire or not at_work,
                    "P9",
                    lambda q=q: f"{self.name(p.pid)} draws the token of {self.name(q.pid)}",
                )

    def write_plan(self, s: State, p: Process) -> Iterator[tuple[str, State]]:
        r, _, n = p.pid
        old, after = s.plan[r], s
        if not (old and old[0] > n and "plan_order" in self.on):
            seq, lazy = s.seq + 1, "lazy_round" in self.on
            tab = tuple(
                Tab(
                    t.rnd + (not lazy),
                    0,
                    lazy,
                    # a try from before the clear has opened the round
                    max(t.gen, bat.gen) + (lazy and t.rnd > 0 and not t.again),
                )
                for t, bat in zip(s.tab[r], s.air[r].batches, strict=True)
            )
            plan = put(s.plan, r, (n, p.rules, seq))
            after = s._replace(seq=seq, plan=plan, tab=put(s.tab, r, tab))
        q = p._replace(pc="EXIT", todo=())
        yield f"writes plan (rules {p.rules})", self.setp(after, p, q)

    def judge(self, s: State, p: Process) -> Iterator[tuple[str, State]]:
        r = p.pid[0]
        air, ok = s.air[r], s.air[r].plan == "s"
        for b, venues in enumerate(self.c.runs[r].batches):
            if "finish_asks" in self.on:
                ok = ok and air.batches[b].st == "s"
            for v in venues:
                ok = ok and any(
                    row.pid[:2] == (r, b) and row.rnd == s.tab[r][b].rnd and row.out in WELL
                    for row in s.rows[v]
                )
        if ok:
            self.check_green(s, r)
        self.check_others(s, r)
        over = self.setair(self.setp(s, p, None), r, fin="G" if ok else "R")
        yield f"ends {'green' if ok else 'red'}", over

    # Airflow, time, faults, clicks -------------------------------------------------------------

    def airflow(self, s: State) -> Iterator[tuple[str, State]]:
        new = Process(None, "START", (), (), 0, 0, 0, 0, 0, -1, 0, (), 0, 0)
        for r, run in enumerate(self.c.runs):
            air = s.air[r]
            if air.plan == "n":
                n = air.plan_n + 1
                q = new._replace(pid=(r, PLAN, n), pc="REC", rules=air.cfg)
                yield (
                    f"{run.name}: plan starts",
                    self.setair(self.setp(s, q, q), r, plan="r", plan_n=n),
                )
            for b, bat in enumerate(air.batches):
                if air.plan == "s" and bat.st == "n":
                    q = new._replace(
                        pid=(r, b, bat.n + 1),
                        todo=tuple(Waiting(v) for v in run.batches[b]),
                        gen=bat.gen,
                        clears=air.clears,
                        maxt=bat.maxt,
                    )
                    label = f"{run.name}: batch {b} try {bat.n + 1} starts"
                    yield label, self.bat(self.setp(s, q, q), r, b, st="r", n=bat.n + 1)
            all_over = air.plan == "s" and all(bat.st in "sf" for bat in air.batches)
            if air.fin == "n" and (air.plan == "f" or all_over):
                q = new._replace(pid=(r, FINISH, 1 + air.clears), pc="REC")
                if not any(p.pid == q.pid for p in s.procs):
                    yield f"{run.name}: finish starts", self.setair(self.setp(s, q, q), r, fin="r")
        for v, lease in enumerate(s.lease):
            if lease and not any(p.pid == lease[0] and v in self.holding(p) for p in s.procs):
                label = f"v{v} lease of {self.name(lease[0])} runs out"
                yield label, s._replace(lease=put(s.lease, v, None))
            if s.lock[v] == GONE:
                yield f"v{v} orphaned backend ends", s._replace(lock=put(s.lock, v, None))

    def given_up(self, s: State, p: Process) -> State:
        """Return the state after Airflow gave up a process: its task is retried or fails."""
        r, b, n = p.pid
        air = s.air[r]
        if b == PLAN and (air.plan, air.plan_n) == ("r", n):
            more = n < self.c.runs[r].tries + air.clears * 2
            return self.setair(s, r, plan="n" if more else "f")
        if b == FINISH and air.fin == "r":
            return self.setair(s, r, fin="R")
        if b >= 0 and (air.batches[b].st, air.batches[b].n) == ("r", n):
            return self.bat(s, r, b, st="n" if n < air.batches[b].maxt else "f")
        return s

    def killed(self, s: State, p: Process) -> State:
        lock = tuple(GONE if held == p.pid else held for held in s.lock)
        return self.given_up(self.setp(s._replace(lock=lock), p, None), p)

    def faults(self, s: State) -> Iterator[tuple[str, State]]:
        """Yield the faults that may happen now.

        K SIGKILL. Z Airflow gives up a living process. E a lease expires in a pause. F Redis is
        flushed. G PostgreSQL restarts. T, M a transient or permanent error of a step. A a COMMIT
        succeeds, but its answer is lost. W a wait was too long.
        """
        if s.faults >= self.c.faults:
            return
        kinds = self.c.kinds
        s = s._replace(faults=s.faults + 1)
        for p in s.procs:
            who = self.name(p.pid)
            if "K" in kinds:
                yield f"SIGKILL {who}", self.killed(s, p)
            if "Z" in kinds and self.current(s, p):
                yield f"Airflow loses {who}, which lives on", self.given_up(s, p)
            if p.pid[1] < 0:
                continue
            for v in self.holding(p):
                if "E" in kinds and s.lease[v] == self.me(p):
                    yield (
                        f"{who} pauses, v{v} lease runs out",
                        s._replace(lease=put(s.lease, v, None)),
                    )
            if p.pc == "TX":
                if "T" in kinds:
                    yield f"{who} transient error", self.failed(s, p, 1)
                if "M" in kinds:
                    yield f"{who} permanent error", self.failed(s, p, 2)
                if "A" in kinds:
                    done = self.committed(s, p)
                    q = next(x for x in done.procs if x.pid == p.pid)
                    after = self.setp(done, q, q._replace(pc="READ"))
                    yield f"{who} commits step {p.k}, the answer is lost", after
            if "W" in kinds:
                yield from self.waited_too_long(s, p)
        if "F" in kinds and any(s.lease):
            yield "Redis flushed", s._replace(lease=(None,) * self.c.venues)
        if "G" in kinds and any(s.lock):
            after = s._replace(lock=(None,) * self.c.venues)
            for p in s.procs:
                if p.pc == "TX":
                    after = self.setp(after, p, p._replace(pc="READ"))
            yield "PostgreSQL restarts", after

    def waited_too_long(self, s: State, p: Process) -> Iterator[tuple[str, State]]:
        label = f"{self.name(p.pid)} waited too long"
        if p.pc == "LEASE" and p.todo and not p.todo[0].tok and s.lease[p.todo[0].v]:
            yield label, self.setp(s, p, self.after(p, p.todo[1:], bad=self.worse(p, 1), redo=0))
        elif p.pc in ("DRAW", "ENTER") and any(s.lock[m.v] for m in p.grp):
            if len(p.grp) > 1:
                yield label, self.one_by_one(s, p)
            else:
                yield label, self.setp(s, p, p._replace(pc="FAIL", k=1))

    def clicks(self, s: State) -> Iterator[tuple[str, State]]:
        """Yield clicks: f clears failed tasks, s a success, w a whole run; m marks a run failed."""
        if s.ops >= self.c.ops:
            return
        clicks = self.c.clicks
        s = s._replace(ops=s.ops + 1)
        for r, run in enumerate(self.c.runs):
            air = s.air[r]
            if air.fin == "R" and "f" in clicks:
                plan = "n" if air.plan == "f" else air.plan
                after = self.setair(s, r, fin="n", clears=air.clears + 1, plan=plan)
                for b, bat in enumerate(air.batches):
                    if bat.st == "f":
                        after = self.bat(after, r, b, st="n", maxt=bat.n + max(1, run.tries - 1))
                yield f"user clears the failed tasks of {run.name}", after
            for b, bat in enumerate(air.batches):
                if "s" in clicks and bat.st == "s" and air.fin in "nGR":
                    after = self.setair(s, r, fin="n", clears=air.clears + 1)
                    # retries lowered by one, so that max_tries hides the clear
                    maxt = bat.n + max(1, run.tries - 1)
                    after = self.bat(after, r, b, st="n", maxt=maxt, gen=bat.gen + 1, mark=s.fence)
                    yield f"user clears batch {b} of {run.name}", after
            if "w" in clicks and air.plan in "sf" and air.fin != "r":
                cfg = run.edit or air.cfg
                after = self.setair(s, r, plan="n", fin="n", clears=air.clears + 1, cfg=cfg)
                for b, bat in enumerate(air.batches):
                    mark = s.fence if bat.st == "s" else ()
                    maxt, gen = bat.n + run.tries, bat.gen + 1
                    after = self.bat(after, r, b, st="n", maxt=maxt, gen=gen, mark=mark)
                yield f"user clears all of {run.name}", after
            if "m" in clicks and air.plan == "s" and air.fin == "n":
                after = s
                for b, bat in enumerate(air.batches):
                    if bat.st in "nr":
                        after = self.bat(after, r, b, st="f")
                yield f"user marks {run.name} failed", after
