"""`replayguard attack`: how easily a detector of one's own is led astray."""

import sys
from pathlib import Path
from typing import Literal

from commands import AsJson


def attack(
    corpus: Path | None = None,
    detector: str = "default",
    classifier: Path | None = None,
    data: Path | None = None,
    out: Path | None = None,
    split: str = "dev",
    array: str = "D1",
    clips: int = 60,
    genuine: int = 60,
    training: int = 60,
    attacks: tuple[str, ...] = (
        "none",
        "random",
        "fixed",
        "static",
        "imitation",
        "listening",
        "expert",
        "pgd",
    ),
    below_db: float | None = None,
    pulses: int = 5,
    pulse_ms: float = 10.0,
    energy: float | None = None,
    delay_ms: float = 30.0,
    shape: Literal["noise", "constant", "chirp"] | None = None,
    air: Literal["same", "elsewhere", "direct"] | None = None,
    sweep_db: tuple[float, ...] = (),
    sweep_delays_ms: tuple[float, ...] = (),
    swept: tuple[str, ...] = ("random", "listening"),
    generations: int = 75,
    individuals: int = 10,
    iterations: int = 20,
    stride: int = 3,
    imitation_epochs: int = 150,
    defence: str = "none",
    partner: str | None = None,
    draws: int = 1,
    repeats: int = 1,
    seed: int = 0,
    examples: int = 2,
    as_json: AsJson = False,
) -> None:
    """Measure how robust a model of your own is: short pulses played on top of commands, in real time and not.

    For testing your own models, on recordings at hand: a replay detector on a corpus (--corpus --detector), or a
    keyword classifier on labelled clips (--classifier --data). Prints the robustness table; writes attack.json,
    attack.md and attack.html with examples to listen to. An interrupted measurement goes on in its folder.

    Args:
        corpus: Folder of a corpus, simulated or ReMASC's.
        detector: A bundled detector's name or a checkpoint folder.
        classifier: Instead of a detector: a checkpoint of `replayguard classify`.
        data: Its labelled clips, a CSV or a folder for each class.
        out: Folder of the measurement; default: runs/attack-SPLIT-ARRAY beside you.
        split: Partition whose replays are attacked; attackers learn on train.
        array: Which array's recordings.
        clips: Replays to attack.
        genuine: Clean genuine recordings, for p_miss and the EER under attack.
        training: Replays of train that attackers learn from.
        attacks: Which attacks: none random fixed static imitation listening expert pgd.
        below_db: Largest sample of the perturbation, in dB below the command's level (negative: louder; default 0);
            of a classifier below full scale (default: the published 12.04).
        pulses: At most so many pulses.
        pulse_ms: Length of a pulse.
        energy: Total energy, as seconds of the command at its level; default: what the other limits allow.
        delay_ms: Reaction delay of the real-time attackers.
        shape: What a pulse sounds like; default: noise, for a classifier constant as published.
        air: Where pulses are played: from the command's own device (same), from another place in the room
            (elsewhere), or straight onto all microphones (direct). Default: same if simulated, else direct.
        sweep_db: More amplitudes, for the attacks of --swept.
        sweep_delays_ms: More delays, likewise.
        swept: Attacks that are swept.
        generations: Of the expert's evolution.
        individuals: Of the expert's evolution, times the number of pulses.
        iterations: Of the white-box expert.
        stride: Our real-time attacker asks the victim about every so many steps of 10 ms of its training clips.
        imitation_epochs: Of the published real-time attacker.
        defence: none; windows, limiter, noise or parts, joined by + where several; ensemble.
        partner: Second detector of an ensemble: a detector, or source, the bundled source classifier.
        draws: How often the attacker asks a defence that draws numbers, for each answer.
        repeats: How often such a defence judges each attempt.
        seed: Draws the clips, and whatever the attackers draw.
        examples: Clips to listen to in the page.
        as_json: Print the record as JSON.
    """
    import json

    from eval.attack_page import attack_example, write_page
    from streaming.attack.campaign import Plan
    from streaming.attack.keywords import PUBLISHED_DB, Keywords, measure_keywords
    from streaming.attack.pulses import Budget
    from streaming.attack.run import Robustness, measure
    from streaming.attack.run import examples as to_hear

    if (corpus is None) == (classifier is None) or (classifier is None) != (data is None):
        raise ValueError("name what to attack: --corpus (and --detector), or --classifier and --data")
    if corpus is None and (air, defence, partner, draws, repeats) != (None, "none", None, 1, 1):
        raise ValueError(
            "--air, --defence, --partner, --draws and --repeats are a replay detector's; a classifier has none"
        )
    if below_db is None:
        below_db = 0.0 if classifier is None else PUBLISHED_DB
    shape = shape or ("noise" if classifier is None else "constant")
    plan = Plan(
        Budget(below_db, pulses, pulse_ms / 1000, energy), delay_ms / 1000, shape, tuple(attacks),
        tuple(sweep_db), tuple(ms / 1000 for ms in sweep_delays_ms), tuple(swept), generations, individuals,
        iterations, stride, imitation_epochs=imitation_epochs, seed=seed,
    )  # fmt: skip
    progress = sys.stderr.isatty()
    if corpus is None:
        target = out or Path("runs") / f"attack-{split}-{Path(classifier).name}"
        words = Keywords(classifier, data, split, clips, training, plan=plan)
        record, campaign, attacked = measure_keywords(words, target, progress=progress)
    else:
        target = out or Path("runs") / f"attack-{split}-{array}"
        task = Robustness(
            corpus, detector, split, array, clips, genuine, training, air, defence, partner, draws, repeats,
            plan=plan,
        )  # fmt: skip
        record, campaign, attacked = measure(task, target, progress=progress)
    rate = campaign.victim.sample_rate
    heard = [
        attack_example(target / "clips", f"{clip}: {name}", waveform, rate, row)
        for name, clip, waveform, row in to_hear(campaign, attacked, examples)
    ]
    page = write_page(target / "attack.html", record, heard)
    if as_json:
        print(json.dumps(record, indent=1, default=str))
        return
    _show(record)
    print(f"Page: {page.resolve()}")


def _show(record: dict) -> None:
    from rich.console import Console
    from rich.table import Table

    from streaming.attack.baselines import REAL_TIME
    from streaming.attack.table import facts, shown

    console = Console(highlight=False, markup=False)
    for fact in facts(record):
        console.print(fact)
    head, rows = shown(record["lines"])
    table = Table(*head)
    for line, (_, *rest) in zip(record["lines"], rows, strict=True):  # pages name budgets in full
        delay = f", {line['delay_ms']:g} ms" if line["attack"] in REAL_TIME else ""
        table.add_row(f"{line['attack']}, {-line['below_db']:+.3g} dB{delay}", *rest)
    console.print(table)
