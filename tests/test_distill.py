"""Cross-model distillation: the loss is what the paper says, and the teacher hears what the student hears."""

from __future__ import annotations

import pytest
import torch

from detector.classify.config import ClassifyConfig
from detector.classify.fitting import Fitting
from detector.classify.network import Architecture, Classifier
from detector.classify.progress import Progress
from detector.distill import Distillation, Teacher, distillation_loss, task_loss


@pytest.fixture
def batch():
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 8, 5)
    return student.requires_grad_(), teacher, torch.nn.functional.one_hot(torch.arange(8) % 5, 5).float()


@pytest.mark.parametrize("kind", ["ce", "bce"])
def test_lambda_goes_from_teacher_to_labels(batch, kind):
    student, teacher, targets = batch
    task = task_loss(student, targets, kind)
    alone = distillation_loss(student, teacher, targets, Distillation(2.0, 0.0), kind)
    assert distillation_loss(student, teacher, targets, Distillation(2.0, 1.0), kind) == task
    half = distillation_loss(student, teacher, targets, Distillation(2.0, 0.5), kind)
    torch.testing.assert_close(half, (task + alone) / 2)


@pytest.mark.parametrize("kind", ["ce", "bce"])
@pytest.mark.parametrize("soften", ["teacher", "both"])
def test_a_student_that_agrees_has_nothing_to_learn(batch, kind, soften):
    student, _, targets = batch
    temperature = 3.0
    agreeing = student.detach() * (temperature if soften == "teacher" else 1.0)
    d = Distillation(temperature, 0.0, soften)
    loss = distillation_loss(student, agreeing, targets, d, kind)
    assert float(loss.detach()) == pytest.approx(0, abs=1e-6)
    loss.backward()
    assert student.grad.abs().max() < 1e-6
    assert distillation_loss(student, -agreeing, targets, d, kind) > 0.01


def test_the_divergence_is_kullbacks(batch):
    student, teacher, targets = batch
    p = (teacher / 2).softmax(-1)
    expected = (p * (p.log() - student.log_softmax(-1))).sum(-1).mean()
    torch.testing.assert_close(distillation_loss(student, teacher, targets, Distillation(2.0, 0.0)), expected)


def test_nothing_flows_to_the_teacher(batch):
    student, teacher, targets = batch
    teacher.requires_grad_()
    distillation_loss(student, teacher, targets, Distillation()).backward()
    assert teacher.grad is None


def network(**changes):
    torch.manual_seed(1)
    return Classifier(Architecture(("a", "b"), **{"stride": (16, 16), "frames": 32} | changes))


def test_the_teacher_hears_the_same_in_its_own_normalisation():
    student, own = network(), network(mean=-6.0, deviation=3.0)
    teacher = Teacher(own, student)
    x, lengths = torch.randn(2, 5360) * 0.1, torch.tensor([5360, 4000])
    with torch.no_grad():
        expected = own.eval()(x, lengths)
        torch.testing.assert_close(teacher(*student.spectrograms(x, lengths)), expected, rtol=1e-3, atol=1e-4)
    assert not any(p.requires_grad for p in own.parameters())


def test_a_teacher_that_cannot_hear_the_student_is_refused():
    student = network()
    for other, words in (
        (Classifier(Architecture(("a", "c"), stride=(16, 16), frames=32)), "classes"),
        (network(frontend="trainable"), "front end"),
        (network(frames=20), "20 frames"),
    ):
        with pytest.raises(ValueError, match=words):
            Teacher(other, student)


def test_settings_are_checked():
    for wrong in ({"temperature": 0}, {"task_share": 1.5}, {"soften": "none"}):
        with pytest.raises(ValueError, match="distillation"):
            Distillation(**wrong)


@pytest.mark.parametrize(("learns", "teaches"), [("psla", "ast"), ("ast", "psla")])
def test_teacher_and_student_compute_each_in_their_own_precision(learns, teaches, tmp_path, monkeypatch):
    """On a CPU that multiplies bfloat16 an AST computes in it, an EfficientNet does not."""
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    student, own = network(backbone=learns), network(backbone=teaches)
    config = ClassifyConfig(data="x", out=tmp_path, device="cpu", backbone=learns)
    fitting = Fitting(
        config,
        student,
        {},
        torch.eye(2),
        tmp_path,
        Progress(False),
        teacher=Teacher(own, student),
        distillation=Distillation(),
    )
    half = {}
    for name, one in ((learns, student), (teaches, own)):

        def logits(spectra, frames, name=name):
            half[name] = torch.is_autocast_enabled("cpu")
            return torch.zeros(1, 2)

        monkeypatch.setattr(one, "logits", logits)
    fitting._loss(torch.zeros(1, 32, 128), torch.tensor([32]), torch.eye(2)[:1])
    assert half == {"ast": True, "psla": False}
