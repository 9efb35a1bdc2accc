"""A campaign on a toy victim gives known values, goes on where it stopped, and refuses another's folder."""

import json
from dataclasses import asdict

import numpy as np
import pytest
import torch
from torch import nn

from streaming.attack.baselines import random_steps
from streaming.attack.campaign import LEDGER, Campaign, Case, Plan
from streaming.attack.environment import Clip, Environment
from streaming.attack.pulses import Budget
from streaming.attack.table import cells, figures, markdown
from streaming.attack.victims import ClassifierVictim

RATE = 16000
FEW = ("none", "random", "fixed", "static", "expert")


class Sentry(nn.Module):
    """Right until something loud happens in the fourth tenth of the clip; wrong about what is silent there."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tenth = x.shape[-1] // 10
        weak = x[:, 3 * tenth : 4 * tenth].square().mean(-1)
        return torch.stack([1.0 - 3.0 * (weak < 1e-6), 400 * weak], dim=1)


def clips(count: int, silent: int = 0) -> list[Clip]:
    out = []
    for k in range(count):
        x = np.random.default_rng(k).normal(0, 0.01, (1, RATE)).astype(np.float32)
        if k < silent:
            x[:, 4800:6400] = 0
        out.append(Clip(f"clip-{k}", x, 0, 0.1))
    return out


def plan(**options) -> Plan:
    base = {"attacks": FEW, "shape": "constant", "generations": 10, "individuals": 6, "random_draws": 2}
    return Plan(Budget(below_db=-12, pulses=2), **(base | options))


def run(tmp_path, the_plan: Plan, victim: ClassifierVictim | None = None):
    campaign = Campaign(victim or ClassifierVictim(Sentry()), the_plan, tmp_path, {"victim": "sentry"})
    rows = campaign.run(clips(6, silent=2), clips(3), progress=False)
    return campaign, {line["attack"]: line for line in figures(the_plan.cases(), rows)}


def test_known_values_on_a_toy_victim(tmp_path):
    _, lines = run(tmp_path, plan())
    assert lines["none"]["clips"] == 6
    assert lines["none"]["right_before"] == 4  # what is silent in its weak spot was wrong before
    assert lines["none"]["success"]["value"] == 0
    assert lines["none"]["drop"]["value"] == pytest.approx(0, abs=1e-6)
    assert lines["expert"]["success"]["value"] == lines["static"]["success"]["value"] == 1
    assert lines["fixed"]["success"]["value"] == 0  # 25 and 75 % of the clip: beside the weak spot
    assert lines["expert"]["gained"]["value"] == 1
    assert lines["random"]["queries"] == 0 < lines["expert"]["queries"]
    record = {
        "victim": "sentry", "corpus": "toys", "simulated": None, "what": "toys", "air": "none", "defence": "none",
        "training": 3, "learning_queries": {"static": 1234}, "over": "clips", "lines": list(lines.values()),
        "plan": asdict(plan()),
    }  # fmt: skip
    assert "100.0 %" in markdown(record)
    assert "static 1,234" in markdown(record)
    assert "judges 132 sets of moments for a clip (published: 3,800)." in markdown(record)
    assert len(cells(lines["expert"])) == 7


def test_it_goes_on_where_it_stopped(tmp_path):
    campaign, lines = run(tmp_path, plan())
    text = (tmp_path / LEDGER).read_text()
    kept = text.splitlines(keepends=True)[:12]
    (tmp_path / LEDGER).write_text("".join(kept) + '{"torn')
    victim = ClassifierVictim(Sentry())
    _, again = run(tmp_path, plan(), victim)
    assert again == lines
    assert victim.queries < campaign.victim.queries
    _, third = run(tmp_path, plan(), whole := ClassifierVictim(Sentry()))
    assert third == lines
    assert whole.queries == 0


def test_a_measurement_can_be_enlarged(tmp_path):
    """The first clips of more are not asked again, and what attackers learnt cost what the ledger says."""
    run(tmp_path, plan())
    victim = ClassifierVictim(Sentry())
    campaign = Campaign(victim, plan(), tmp_path, {"victim": "sentry"})
    rows = campaign.run(clips(7, silent=2), clips(3), progress=False)
    whole = Campaign(other := ClassifierVictim(Sentry()), plan(), tmp_path / "whole", {"victim": "sentry"})
    assert whole.run(clips(7, silent=2), clips(3), progress=False) == rows
    assert victim.queries < other.queries / 3
    learnt = {line["name"]: line["queries"] for line in whole.ledger.values()}
    assert campaign.learning_queries() == whole.learning_queries() == {"static": learnt["static"]}
    assert learnt["static"] > 0


def test_pgd_is_an_upper_bound_and_pays_for_what_it_makes_use_of(tmp_path):
    """It begins at what the others came to, wherever the plan names it, and says so in its queries."""
    the_plan = plan(attacks=("pgd", "random", "fixed", "expert"), iterations=1)
    assert the_plan.cases()[-1].attack == "pgd"
    campaign, lines = run(tmp_path, the_plan)
    assert lines["pgd"]["success"]["value"] == 1
    assert lines["pgd"]["queries"] > lines["expert"]["queries"] > 0
    by_clip = {name.split(":")[0]: rows for name, rows in campaign.rows.items()}
    for name in ("random", "fixed", "expert"):
        for best, other in zip(by_clip["pgd"], by_clip[name], strict=True):
            assert best.p_true <= other.p_true + 1e-4 or name == "random"  # the mean of several draws
    case, one = the_plan.cases()[-1], clips(6, silent=2)[3]
    heard = campaign.example(case, one, by_clip["pgd"][3])
    assert campaign.verdict(heard.waveform, 0) == (by_clip["pgd"][3].score, by_clip["pgd"][3].right)


def test_what_the_victim_has_wrong_is_not_attacked_where_nothing_could_come_of_it(tmp_path):
    campaign = Campaign(ClassifierVictim(Sentry()), plan(), tmp_path, {}, only_right=True)
    rows = campaign.run(clips(6, silent=2), clips(3), progress=False)
    _, lines = run(tmp_path / "all", plan())
    for line in figures(plan().cases(), rows):
        assert line == lines[line["attack"]]
    assert not any("clip-0" in name for name in campaign.ledger if not name.startswith("before"))


def test_another_plan_needs_another_folder(tmp_path):
    run(tmp_path, plan(attacks=("none",)))
    with pytest.raises(ValueError, match="another"):
        run(tmp_path, plan(attacks=("none",), seed=1))


@pytest.mark.slow
def test_the_real_time_attackers_learn_and_resume(tmp_path):
    the_plan = plan(attacks=("none", "random", "imitation", "listening"), imitation_epochs=2, stride=5)
    _, lines = run(tmp_path, the_plan)
    _, again = run(tmp_path, the_plan)
    assert lines == again
    assert (tmp_path / "imitation.safetensors").is_file()


def test_sweeps_add_cases_once():
    cases = plan(sweep_db=(-12, 0), sweep_delays=(0.1,), swept=("random", "listening")).cases()
    assert len(cases) == len(set(cases))
    assert [c.budget.below_db for c in cases if c.attack == "random"] == [-12, 0]
    assert [c.delay for c in cases if c.attack == "listening"] == [0.03, 0.03, 0.1]
    assert len({c.name for c in cases}) == len(cases)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"attacks": ("luck",)}, "unknown attack"),
        ({"attacks": ()}, "no attack"),
        ({"stride": 0}, "stride is 0"),
        ({"iterations": 0}, "iterations is 0"),
        ({"imitation_epochs": 0}, "imitation epochs is 0"),
        ({"generations": -1}, "generations is -1"),
        ({"seed": -1}, "seed is -1"),
        ({"sweep_delays": (float("nan"),)}, "delay"),
        ({"sweep_db": (999,)}, "amplitude"),
    ],
)
def test_absurd_plans_are_refused_before_anything_is_done(options, said):
    with pytest.raises(ValueError, match=said):
        plan(**options)


def test_a_budget_that_pays_for_no_pulse_is_refused(tmp_path):
    nothing = Plan(Budget(energy=0.0), attacks=("none", "random"))
    with pytest.raises(ValueError, match="no pulse"):
        Campaign(ClassifierVictim(Sentry()), nothing, tmp_path, {}).run(clips(1), clips(1), progress=False)


def test_random_moments_belong_to_the_clip():
    environment = Environment(ClassifierVictim(Sentry()), Budget(pulses=5, seconds=0.025))
    one, other = clips(2)
    first = random_steps(environment, one, 0, 0)
    assert first.tolist() == random_steps(environment, one, 0, 0).tolist()
    assert first.tolist() != random_steps(environment, other, 0, 0).tolist()
    assert len(first) == 5
    assert (np.diff(first) >= 3).all()


def test_the_ledger_is_plain_json(tmp_path):
    run(tmp_path, plan(attacks=("none",)))
    for line in (tmp_path / LEDGER).read_text().splitlines():
        assert "checksum" in json.loads(line)
    assert Case("none", Budget(), 0.0, "noise").name.startswith("none: 5 x 10 ms noise")
