"""`replayguard attack`: how easily a detector of one's own is led astray."""

import sys
from pathlib import Path
from typing import Literal

from commands import AsJson


def attack(
    corpus: Path,
    detector: str = "default",
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
    below_db: float = 0.0,
    pulses: int = 5,
    pulse_ms: float = 10.0,
    energy: float | None = None,
    delay_ms: float = 30.0,
    shape: Literal["noise", "constant", "chirp"] = "noise",
    air: Literal["same", "elsewhere", "direct"] | None = None,
    sweep_db: tuple[float, ...] = (),
    sweep_delays_ms: tuple[float, ...] = (),
    swept: tuple[str, ...] = ("random", "listening"),
    generations: int = 75,
    individuals: int = 10,
    iterations: int = 20,
    defence: str = "none",
    partner: str | None = None,
    draws: int = 1,
    repeats: int = 1,
    seed: int = 0,
    examples: int = 2,
    as_json: AsJson = False,
) -> None:
    """Measure how robust a detector of your own is: short pulses played on top of replays, in real time and not.

    For testing your own models, on recordings at hand. Prints the robustness table; writes attack.json, attack.md
    and attack.html with examples to listen to. An interrupted measurement goes on in its folder.

    Args:
        corpus: Folder of a corpus, simulated or ReMASC's.
        detector: A bundled detector's name or a checkpoint folder.
        out: Folder of the measurement; default: runs/attack-SPLIT-ARRAY beside you.
        split: Partition whose replays are attacked; attackers learn on train.
        array: Which array's recordings.
        clips: Replays to attack.
        genuine: Genuine recordings to compare with, for the EER under attack.
        training: Replays of train that attackers learn from.
        attacks: Which attacks: none random fixed static imitation listening expert pgd.
        below_db: Largest sample of the perturbation, in dB below the command's level (negative: louder).
        pulses: At most so many pulses.
        pulse_ms: Length of a pulse.
        energy: Total energy, as seconds of the command at its level; default: what the other limits allow.
        delay_ms: Reaction delay of the real-time attackers.
        shape: What a pulse sounds like.
        air: Where pulses are played: from the command's own device (same), from another place in the room
            (elsewhere), or straight onto all microphones (direct). Default: same if simulated, else direct.
        sweep_db: More amplitudes, for the attacks of --swept.
        sweep_delays_ms: More delays, likewise.
        swept: Attacks that are swept.
        generations: Of the expert's evolution.
        individuals: Of the expert's evolution, times the number of pulses.
        iterations: Of the white-box expert.
        defence: none; windows, limiter or noise, joined by + where several; ensemble.
        partner: Second detector of an ensemble.
        draws: How often the attacker asks a defence that draws numbers, for each answer.
        repeats: How often such a defence judges each attempt.
        seed: Draws the clips, and whatever the attackers draw.
        examples: Clips to listen to in the page.
        as_json: Print the record as JSON.
    """
    import json

    from eval.attack_page import attack_clip, write_page
    from streaming.attack.campaign import Plan
    from streaming.attack.pulses import Budget
    from streaming.attack.run import Robustness, measure
    from streaming.attack.run import examples as to_hear

    plan = Plan(
        Budget(below_db, pulses, pulse_ms / 1000, energy), delay_ms / 1000, shape, tuple(attacks),
        tuple(sweep_db), tuple(ms / 1000 for ms in sweep_delays_ms), tuple(swept), generations, individuals,
        iterations, seed=seed,
    )  # fmt: skip
    task = Robustness(
        corpus,
        detector,
        split,
        array,
        clips,
        genuine,
        training,
        air,
        defence,
        partner,
        draws,
        repeats,
        plan=plan,
    )
    target = out or Path("runs") / f"attack-{split}-{array}"
    record, campaign, attacked = measure(task, target, progress=sys.stderr.isatty())
    rate = campaign.victim.sample_rate
    heard = [
        attack_clip(
            target / "clips", f"{clip}: {name}", waveform, rate, row.score, f"{len(row.starts)} pulses"
        )
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

    from streaming.attack.table import HEAD, cells, facts

    console = Console(highlight=False, markup=False)
    for fact in facts(record):
        console.print(fact)
    table = Table(*HEAD)
    for line in record["lines"]:
        table.add_row(*cells(line))
    console.print(table)
