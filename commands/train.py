"""`replayguard train`: a system trained on a corpus."""

from commands import configured_by


@configured_by("detector.config:TrainConfig")
def train(config) -> None:
    """Train a system on a corpus: --system compact, nn-multichannel, malrad, acoustic-maps and more."""
    from detector.train import train

    print(train(config).folder)
