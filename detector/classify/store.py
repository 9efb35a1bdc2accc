"""Classifiers on disk: checkpoint folders, what an adapted one is based on, and weights to begin from.

A checkpoint's config.json has `kind` "classifier" and the `architecture`. Of an adapted network model.safetensors
holds the few trained parameters alone; config.json then has the `adaptation` and the `base`: its folder or file,
relative to the checkpoint, and the hash of everything that is frozen.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from detector.adapters import Adaptation, adapt, base_hash, merge_lora, trained
from detector.backbones.weights import Source, read_source
from detector.checkpoint import CONFIG, RUN, WEIGHTS, load_checkpoint, save_checkpoint
from detector.classify.network import Architecture, Classifier, Ensemble, build
from detector.published.weights import misfit, published_tensors
from detector.rundir import BEGUN
from remasc.sentences import quoted, reason

KIND = "classifier"
_ONLY_WHOLE = "`classify train` goes on from it with --backbone psla, `classify adapt` takes an AST"
HEADS = {"ast": "backbone.mlp_head.", "psla": "backbone.attention."}  # what knows the classes


@dataclass
class Loaded:
    """A classifier, ready to predict, with its checkpoint's config.json and run.json."""

    network: Classifier | Ensemble
    config: dict[str, Any]
    run: dict[str, Any]


def save_classifier(
    folder: Path,
    network: nn.Module,
    weights: Mapping[str, Tensor],
    *,
    training: dict[str, Any],
    run: dict[str, Any],
    base: Path | None = None,
) -> Path:
    """Write `weights` of the network as a checkpoint; of an adapted network its few parameters and the `base`."""
    config = {"kind": KIND, "architecture": network.architecture.as_dict(), "training": training}
    adaptation: Adaptation | None = getattr(network, "adaptation", None)
    if adaptation is not None and base is not None:
        few = trained(network)
        config["adaptation"] = asdict(adaptation)
        config["base"] = {"path": os.path.relpath(base, folder), "sha256": base_hash(network)}
        weights = {name: weights[name] for name in few}
    return save_checkpoint(folder, weights, config, run)


def load_classifier(folder: str | Path, *, base: str | Path | None = None) -> Loaded:
    """The classifier of a checkpoint folder, on the CPU. `base` says where an adapted one's base lies now."""
    folder = Path(folder)
    if not (folder / CONFIG).exists():
        _refuse_unfit(folder)
    config, state, run = load_checkpoint(folder)
    if config.get("kind") != KIND:
        raise ValueError(f"{folder}: no classifier's checkpoint; expected one of `replayguard classify`")
    architecture = Architecture.from_dict(config.get("architecture"))
    if "base" in config:
        network = _load_adapted(folder, architecture, config, state, base)
    else:
        network = build(architecture)
        if fault := misfit(state, network.state_dict()):
            raise ValueError(f"{folder / WEIGHTS}: {fault}; copy the folder anew")
        network.load_state_dict(state)
    return Loaded(network.eval(), config, run)


def _refuse_unfit(folder: Path) -> None:
    """ValueError, in one sentence, of a folder that a person takes for a classifier's."""
    if (folder / BEGUN).exists():
        raise ValueError(f"{folder}: its training is not finished; run that again, it goes on from there")
    if (folder / WEIGHTS).exists() and (folder / RUN).exists():
        raise ValueError(
            f"{folder}: is a pretraining, which knows no classes; fine-tune it first (classify adapt --base)"
        )


def _load_adapted(
    folder: Path, architecture: Architecture, config: dict, state: dict[str, Tensor], base: str | Path | None
) -> Classifier:
    try:
        reference = str(config["base"]["path"])
        wanted, adaptation = str(config["base"]["sha256"]), Adaptation(**config["adaptation"])
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{folder / CONFIG}: not an adapted classifier's ({reason(error)}); copy it anew"
        ) from None
    place = Path(base) if base is not None else Path(os.path.normpath(folder / reference))
    if not place.exists():
        raise ValueError(
            f"{folder}: its base {reference} is not there (relative to the folder); give its place with --base"
        )
    network = adapt(begin(architecture, place), adaptation)
    shapes = {name: value.shape for name, value in trained(network).items()}
    if {name: value.shape for name, value in state.items()} != shapes or base_hash(network) != wanted:
        raise ValueError(f"{folder}: {place} is not the base that it was trained on; give that one")
    network.load_state_dict(state, strict=False)
    return network


def begin(architecture: Architecture, base: str | Path | None = None) -> Classifier:
    """The network to train: new, or with the weights of `base`, which then say what the backbone is.

    `base` is a classifier's folder, the folder of a pretraining (or its model.safetensors), or a published file
    of AST, SSAST, DeiT or PSLA. A head for other classes is new. Only classes, frames, loss, the front end (where
    the base's is fixed) and, without a classifier's folder, the stride are the architecture's own.
    """
    if base is None:
        return Classifier(architecture)
    base = Path(base)
    if base.is_dir() and (base / CONFIG).exists():
        return _from_classifier(architecture, base)
    if base.is_dir() and (base / WEIGHTS).exists() and (base / RUN).exists():
        base = base / WEIGHTS  # a pretraining's
    if base.is_dir():
        raise ValueError(
            f"{base}: holds neither a classifier nor a finished pretraining ({WEIGHTS}, {RUN}); let it finish, or "
            "give another"
        )
    tensors, _ = published_tensors(base)
    if any(name.startswith("effnet.") for name in tensors):
        return _from_psla(architecture, tensors, base)
    return _from_transformer(architecture, base)


def _from_transformer(architecture: Architecture, path: Path) -> Classifier:
    if architecture.backbone != "ast":
        raise ValueError(
            f"{path}: holds a transformer's weights, {architecture.backbone} takes its own; use --backbone ast"
        )
    source = read_source(path)
    patch = tuple(int(n) for n in source.filter().shape[2:])
    shape = {"size": source.size(), "patch": patch}
    if source.pretrained:
        stride = tuple(min(s, p) for s, p in zip(architecture.stride, patch, strict=True))
        shape |= {"pooling": "mean", "mels": source.pretraining_input()[0], "stride": stride}
    network = Classifier(replace(architecture, **shape))
    network.backbone.load_published(path)
    return network


def _from_psla(architecture: Architecture, tensors: Mapping[str, Tensor], path: Path) -> Classifier:
    if architecture.backbone != "psla":
        raise ValueError(f"{path}: holds an EfficientNet's weights; {_ONLY_WHOLE}")
    from detector.backbones import PSLA

    heads, classes = 0, len(architecture.classes)
    for name, value in tensors.items():
        if name.startswith("attention.cla") and name.endswith(".bias"):
            heads, classes = heads + 1, len(value)
    heads = 0 if not any(name.startswith("attention.att") for name in tensors) else heads
    whole = PSLA(classes, architecture.variant, heads).load_published(dict(tensors))
    network = Classifier(replace(architecture, heads=heads))
    network.backbone.effnet.load_state_dict(whole.effnet.state_dict())
    if classes == len(architecture.classes):
        network.backbone.attention.load_state_dict(whole.attention.state_dict())
    return network


def _from_classifier(architecture: Architecture, folder: Path) -> Classifier:
    base = load_classifier(folder).network
    if isinstance(base, Ensemble):
        raise ValueError(f"{folder}: is an ensemble; begin from one of its members")
    if hasattr(base, "adaptation"):
        if base.adaptation.method != "lora":
            raise ValueError(f"{folder}: is itself adapted; begin from its base, or from a LoRA")
        base = merge_lora(base)
    there = base.architecture
    if there.backbone != architecture.backbone:
        use = _ONLY_WHOLE if there.backbone == "psla" else f"use --backbone {there.backbone}"
        raise ValueError(f"{folder}: is a {there.backbone}; {use}")
    names = ("classes", "frames", "loss", *(("frontend",) if there.frontend == "fixed" else ()))
    network = Classifier(replace(there, **{name: getattr(architecture, name) for name in names}))
    own, tensors = network.state_dict(), dict(base.state_dict())
    if network.architecture.frontend != there.frontend:  # a fixed bank is where a trainable one begins
        tensors |= {name: value for name, value in own.items() if name.startswith("front.")}
    if there.classes != architecture.classes:
        head = HEADS[there.backbone]
        tensors |= {name: value for name, value in own.items() if name.startswith(head)}
    if there.backbone == "ast" and there.frames != architecture.frames:
        grid = base.backbone.v.rows, base.backbone.v.columns
        source = Source(base.backbone.state_dict(), str(folder), known=grid)
        network.backbone.load_source(source)  # positions cut or stretched as published
        tensors["backbone.v.pos_embed"] = network.state_dict()["backbone.v.pos_embed"]
    if fault := misfit(tensors, own):
        raise ValueError(f"{folder}: does not fit ({fault}); it is no base for this network")
    network.load_state_dict(tensors)
    return network


def adaptation_of(
    method: str, places: str, rank: int, scale: float | None, network: Classifier
) -> Adaptation:
    """Where a method goes in this AST, as compared by Cappellazzo et al. 2023; the head is always trained."""
    if network.architecture.backbone != "ast":
        raise ValueError(f"{method} adapts an AST, not {quoted(network.architecture.backbone)}; give an AST")
    blocks = "backbone.v.blocks.*"
    after = [f"{blocks}.mlp.fc2"], [f"{blocks}.attn.proj", f"{blocks}.mlp.fc2"]
    beside = [f"{blocks}.mlp"], [f"{blocks}.attn", f"{blocks}.mlp"]
    both = int(places == "houlsby")
    targets = {
        "lora": [f"{blocks}.attn.qkv"],
        "serial": after[both],
        "parallel": beside[both],
        "prompt": [f"backbone.v.blocks.{n}" for n in range(len(network.backbone.v.blocks))],
    }.get(method, [])
    width = network.backbone.v.dim if method in ("parallel", "prompt") else None
    return Adaptation(method, tuple(targets), ("backbone.mlp_head",), rank, scale, width)
