"""A whole measurement: clips of a corpus, every attack on each, and what came of it. Resumable.

Attackers learn on train, are measured on another partition. What was done is written at once, a line for each
attempt, so that an interrupted campaign goes on where it stopped. Everything is drawn from names and the seed.
"""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from remasc.atomic import write_text
from remasc.parallel import tracked
from remasc.shards import sealed, unsealed
from streaming.attack.baselines import ATTACKS, REAL_TIME, Arsenal
from streaming.attack.environment import Attempt, Clip, Environment, check_delay
from streaming.attack.expert import Evolution, expert, static
from streaming.attack.learning import attend, effects, expected, held_out, imitate, paced, worth
from streaming.attack.policy import ChoosyListener, ImitatingListener, Imitator, Listening
from streaming.attack.pulses import Budget
from streaming.attack.victims import Victim, probability

LEDGER = "attempts.jsonl"
EPOCHS = 60  # of `attend`
VERSION = 4  # of the ledger's lines, and of what the attacks do
LEARNING = {
    "static": ("static",),
    "imitation": ("teacher",),
    "listening": ("effects", "pace"),
}  # lines begin so


@dataclass(frozen=True)
class Case:
    """One attack under one budget and delay: a row of the robustness table."""

    attack: str
    budget: Budget
    delay: float
    shape: str

    @property
    def name(self) -> str:
        energy = "" if self.budget.energy is None else f", energy {self.budget.energy:g}"
        pulses = f"{self.budget.pulses} x {1000 * self.budget.seconds:g} ms {self.shape}{energy}"
        delay = f", {1000 * self.delay:g} ms delay" if self.attack in REAL_TIME else ""
        return f"{self.attack}: {pulses}, {self.budget.below_db:g} dB below{delay}"


@dataclass(frozen=True)
class Plan:
    """What is to be measured. `sweep_db` and `sweep_delays` add cases to the base for the attacks of `swept`."""

    budget: Budget = field(default_factory=Budget)
    delay: float = 0.03
    shape: str = "noise"
    attacks: tuple[str, ...] = ATTACKS
    sweep_db: tuple[float, ...] = ()
    sweep_delays: tuple[float, ...] = ()
    swept: tuple[str, ...] = ("random", "listening")
    generations: int = 75
    individuals: int = 10
    iterations: int = 20
    stride: int = 3
    random_draws: int = 3
    imitation_epochs: int = 150
    seed: int = 0

    def __post_init__(self) -> None:
        for name in (*self.attacks, *self.swept):
            if name not in ATTACKS:
                raise ValueError(f"unknown attack {name!r}; expected some of {', '.join(ATTACKS)}")
        if not self.attacks:
            raise ValueError(f"no attack is named; expected some of {', '.join(ATTACKS)}")
        least = dict.fromkeys(("individuals", "iterations", "stride", "random_draws", "imitation_epochs"), 1)
        for name, smallest in (least | {"generations": 0, "seed": 0}).items():
            if getattr(self, name) < smallest:
                words = f"{name.replace('_', ' ')} is {getattr(self, name)}"
                raise ValueError(f"{words}; expected at least {smallest}")
        for delay in (self.delay, *self.sweep_delays):
            check_delay(delay)
        self.cases()  # their budgets say what is wrong with them

    def cases(self) -> list[Case]:
        """In the order in which they are run: pgd, which makes use of the others, is the last of its budget."""
        last = lambda name: name == "pgd"  # noqa: E731
        base = [Case(name, self.budget, self.delay, self.shape) for name in sorted(self.attacks, key=last)]
        for db in self.sweep_db:
            louder = replace(self.budget, below_db=db)
            base += [Case(name, louder, self.delay, self.shape) for name in sorted(self.swept, key=last)]
        for delay in self.sweep_delays:
            base += [Case(name, self.budget, delay, self.shape) for name in self.swept if name in REAL_TIME]
        return list(dict.fromkeys(base))


@dataclass(frozen=True)
class Row:
    """One clip under one case. `right` is the share of answers that were right (of repeated ones), `p_true` the
    probability of the true class, each before and after; `score` as the finished system gave it. `starts` are those
    of the first draw; `waveforms` (base64 of float32) are kept where they are not the budget's own pulse."""

    case: str
    clip: str
    speaker: str
    right_before: bool
    p_before: float
    score_before: float
    right: float
    p_true: float
    score: float
    queries: int
    starts: list[int]
    waveforms: str = ""


class Genuine(NamedTuple):
    """Clean genuine clips before a replay detector: scores (G,), which are accepted (shares), and who speaks."""

    scores: np.ndarray
    accepted: np.ndarray
    speakers: Sequence[str]


class Campaign:
    """Runs a plan against a victim and keeps its ledger in `out`.

    `identity` says what the victim and the training clips are: a ledger of another identity or plan is refused. How
    many clips are attacked is no part of it, so that a measurement can be enlarged. With `only_right` what the
    victim has wrong anyhow is not attacked: no success can come of it.
    """

    def __init__(
        self,
        victim: Victim,
        plan: Plan,
        out: Path,
        identity: dict[str, Any],
        *,
        repeats: int = 1,
        only_right: bool = False,
    ):
        self.victim, self.plan, self.out, self.repeats = victim, plan, Path(out), repeats
        self.only_right = only_right
        self.rows: dict[str, list[Row]] = {}  # of the last run, by the case's name
        self.genuine: Genuine | None = None  # what a replay detector says of people, where that was asked
        self.out.mkdir(parents=True, exist_ok=True)
        text = json.dumps([VERSION, asdict(plan), identity, repeats], sort_keys=True, default=str)
        self.key = {"campaign": hashlib.sha256(text.encode()).hexdigest()}
        self.ledger: dict[str, dict[str, Any]] = _read(self.out / LEDGER, self.key)
        self._listeners: dict[tuple, Any] = {}
        evolution = Evolution(plan.generations, plan.individuals, plan.seed)
        self.arsenal = Arsenal(evolution, plan.iterations, plan.seed)

    def run(
        self, clips: Sequence[Clip], training: Sequence[Clip], *, progress: bool = True
    ) -> dict[str, list[Row]]:
        """Every case on every clip, by the case's name. `training` clips are what attackers learn from."""
        arsenal, evolution = self.arsenal, self.arsenal.evolution
        wanted = {case.attack for case in self.plan.cases()}
        base = self.environment(Case("none", self.plan.budget, self.plan.delay, self.plan.shape))
        if base.pulses == 0 and wanted != {"none"}:
            raise ValueError(
                "the budget pays for no pulse; raise --pulses or --energy, or lower the amplitude"
            )
        if "static" in wanted:
            few = list(training)[: min(16, len(training))]
            found = self.once("static", lambda: static(base, few, evolution).steps.tolist(), progress)
            arsenal.static_steps = np.array(found, dtype=np.int64)
        if "imitation" in wanted:
            arsenal.imitating = self._imitator(base, training, evolution, progress)
        before = {c.name: self.once(f"before/{c.name}", lambda c=c: self._before(c), False) for c in clips}
        out = self.rows = {}
        for case in self.plan.cases():
            environment = self.environment(case)
            if case.attack == "listening":
                arsenal.choosy = self._listener(base, training, environment.limits(), progress)
            jobs = ((1, self._row(case, environment, arsenal, clip, before[clip.name])) for clip in clips)
            out[case.name] = list(tracked(jobs, case.name, len(clips), 0, progress))
        return out

    def environment(self, case: Case) -> Environment:
        return Environment(self.victim, case.budget, delay=case.delay, shape=case.shape)

    def example(self, case: Case, clip: Clip, row: Row) -> Attempt:
        """A recorded attempt once more, to be heard."""
        environment = self.environment(case)
        starts = np.array(row.starts, dtype=np.int64)
        waveforms = environment.waveforms(clip, len(starts))
        if row.waveforms:
            waveforms = np.frombuffer(base64.b64decode(row.waveforms), np.float32).reshape(waveforms.shape)
        return environment.play(clip, starts, waveforms)

    def once(self, name: str, make: Callable[[], Any], progress: bool) -> Any:
        """What the ledger has under `name`, or what `make` makes, which is written at once, with what it asked."""
        if name not in self.ledger:
            made, asked = iter([(1, None)]), self.victim.queries
            for _ in tracked(made, name, 1, 0, progress):
                value = make()
            self.ledger[name] = {"name": name, "value": value, "queries": self.victim.queries - asked}
            with (self.out / LEDGER).open("a", encoding="utf-8") as stream:
                stream.write(sealed(self.ledger[name]) + "\n")
        return self.ledger[name]["value"]

    def learning_queries(self) -> dict[str, int]:
        """How often the victim was asked for what attackers learnt beforehand, by attack."""
        attacks = {case.attack for case in self.plan.cases()}
        return {
            attack: sum(line["queries"] for name, line in self.ledger.items() if name.split("/")[0] in kinds)
            for attack, kinds in LEARNING.items()
            if attack in attacks
        }

    def _before(self, clip: Clip) -> dict[str, float]:
        score, right = self.verdict(clip.waveform, clip.truth)
        return {"score": score, "right": right, "p": self._p_true(clip.waveform, clip.truth)}

    def verdict(self, waveform: np.ndarray, truth: int) -> tuple[float, float]:
        """Mean score and share of right answers over the repeats."""
        found = [self.victim.verdict(waveform, truth) for _ in range(self.repeats)]
        return float(np.mean([score for score, _ in found])), float(np.mean([right for _, right in found]))

    def _p_true(self, waveform: np.ndarray, truth: int) -> float:
        x = torch.from_numpy(np.ascontiguousarray(waveform))[None]
        return float(probability(float(self.victim.odds(x, truth)[0])))

    def _row(
        self, case: Case, environment: Environment, arsenal: Arsenal, clip: Clip, before: dict[str, float]
    ) -> Row:
        def attack() -> dict[str, Any]:
            asked, earlier = self.victim.queries, self._earlier(case, clip)
            known = [np.array(row.starts, dtype=np.int64) for row in earlier if row.starts]
            draws = self.plan.random_draws if case.attack == "random" else 1
            attempts = [arsenal.attempt(case.attack, environment, clip, draw, known) for draw in range(draws)]
            queries = self.victim.queries - asked + sum(row.queries for row in earlier)
            found = [self.verdict(one.waveform, clip.truth) for one in attempts]
            free = case.attack == "pgd"
            return {
                "right": float(np.mean([right for _, right in found])),
                "score": float(np.mean([score for score, _ in found])),
                "p_true": float(np.mean([self._p_true(one.waveform, clip.truth) for one in attempts])),
                "queries": queries,
                "starts": attempts[0].starts.tolist(),
                "waveforms": base64.b64encode(attempts[0].waveforms.tobytes()).decode() if free else "",
            }

        right, p, score = before["right"] > 0.5, before["p"], before["score"]
        if self.only_right and not right:
            value = {"right": before["right"], "score": score, "p_true": p, "queries": 0, "starts": []}
        else:
            value = self.once(f"{case.name}/{clip.name}", attack, False)
        return Row(case.name, clip.name, clip.speaker, right, p, score, **value)

    def _earlier(self, case: Case, clip: Clip) -> list[Row]:
        """What pgd begins at: this clip's attempts by the other attacks with the same budget and pulse."""
        if case.attack != "pgd":
            return []
        alike = [c.name for c in self.plan.cases() if (c.budget, c.shape) == (case.budget, case.shape)]
        return [row for name in alike for row in self.rows.get(name, []) if row.clip == clip.name]

    def _imitator(
        self, base: Environment, training: Sequence[Clip], evolution: Evolution, progress: bool
    ) -> ImitatingListener:
        """The published policy, fitted to the expert's moments on the training clips."""

        def teacher(clip: Clip) -> list[int]:
            return expert(base, clip, evolution).steps.tolist()

        jobs = ((1, self.once(f"teacher/{c.name}", lambda c=c: teacher(c), False)) for c in training)
        times = np.array(list(tracked(jobs, "expert on training clips", len(training), 0, progress)))
        network = _fresh(lambda: Imitator(base.step, base.pulses), self.plan.seed)
        curve = _trained(
            self.out / "imitation.safetensors",
            network,
            self.key,
            imitate(network, training, times, epochs=self.plan.imitation_epochs, seed=self.plan.seed),
            self.plan.imitation_epochs,
            progress,
        )
        if curve:
            self.once("imitation curve", lambda: curve, False)
        return ImitatingListener(network)

    def _listener(
        self, base: Environment, training: Sequence[Clip], limits: Any, progress: bool
    ) -> ChoosyListener:
        """Ours, fitted to the victim's answers on the training clips, for one delay and number of pulses."""
        kind = (limits.delay, limits.gap, limits.pulses)
        if kind in self._listeners:
            return self._listeners[kind]

        def ask(clip: Clip) -> list[float | None]:
            return [
                None if np.isnan(v) else round(float(v), 5) for v in effects(base, clip, self.plan.stride)
            ]

        jobs = ((1, self.once(f"effects/{c.name}", lambda c=c: ask(c), False)) for c in training)
        maps = [
            np.array([np.nan if v is None else v for v in one], dtype=np.float32)
            for one in tracked(jobs, "the victim's answers", len(training), 0, progress)
        ]
        network = _fresh(lambda: Listening(base.step), self.plan.seed)
        name = f"listening-{limits.delay}"
        curve = _trained(
            self.out / f"{name}.safetensors",
            network,
            self.key,
            attend(network, training, maps, limits.delay, epochs=EPOCHS, seed=self.plan.seed),
            EPOCHS,
            progress,
        )
        if curve:
            self.once(f"{name} curve", lambda: curve, False)
        unseen = held_out(len(training), self.plan.seed)[1]
        foreseen = expected(network, [training[number] for number in unseen])
        bar = worth(foreseen, [base.steps(clip) for clip in training], limits.pulses, limits.gap)
        heard = [training[number] for number in unseen]
        share, pause = self.once(
            f"pace/{name}",
            lambda: paced(base, heard, foreseen, bar, limits.delay, limits.gap),
            False,
        )
        self._listeners[kind] = ChoosyListener(network, np.float32(share) * bar, pause)
        return self._listeners[kind]


def _fresh(build: Callable[[], Any], seed: int) -> Any:
    """A network with weights drawn from the seed alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return build()


def _trained(
    path: Path, network: Any, key: dict[str, str], fit: Iterator[float], epochs: int, progress: bool
) -> list[float]:
    """Load the weights that an interrupted campaign left, or fit (an item an epoch) and leave them."""
    from safetensors import safe_open
    from safetensors.torch import load_file, save_file

    from remasc.atomic import whole_file

    if path.is_file():
        with safe_open(path, "pt") as opened:
            known = opened.metadata()
        if known == key:
            network.load_state_dict(load_file(path), strict=False)
            network.eval()
            return []
    curve = list(tracked(((1, loss) for loss in fit), path.stem, epochs, 0, progress))
    with whole_file(path) as temporary:
        save_file({k: v.contiguous() for k, v in network.state_dict().items()}, temporary, metadata=key)
    return curve


def _read(path: Path, key: dict[str, str]) -> dict[str, dict[str, Any]]:
    """The ledger's lines by name; torn ones are dropped, and made again."""
    if not path.exists():
        write_text(path, sealed(key) + "\n")
        return {}
    rows = []
    for line in path.read_bytes().decode("utf-8", "replace").splitlines():
        try:
            rows.append(unsealed(line))
        except (ValueError, RecursionError):
            continue
    if not rows or rows[0] != key:
        raise ValueError(
            f"{path.parent}: holds attacks on another detector, on other clips, or by another plan; give another "
            "--out, or delete it"
        )
    write_text(path, "".join(sealed(row) + "\n" for row in rows))
    return {row["name"]: row for row in rows[1:]}
