"""`replayguard simulate`: a corpus from a recipe."""

from pathlib import Path


def simulate(
    out: Path,
    recipe: str = "small",
    speech: Path | None = None,
    noise: Path | None = None,
    template: Path | None = None,
    arrays: tuple[str, ...] = ("D1", "D2", "D3", "D4"),
    scale: float = 1.0,
    seed: int = 0,
    workers: int | None = None,
    cluster: str | None = None,
    resume: bool = True,
) -> None:
    """Simulate a corpus in ReMASC's layout: genuine and replayed commands on the four arrays.

    Args:
        out: Folder of the corpus; an interrupted run goes on there.
        recipe: Name of a shipped recipe (a wrong name lists them) or a TOML file.
        speech: Folder of clean speech and its metadata.csv (file,speaker); default: an embedded synthesiser.
        noise: Folder of background noise; default: synthesised noise.
        template: For remasc-sim: folder with ReMASC's core/meta.csv and eval/meta.csv (or the path of either), to
            be followed row by row.
        arrays: Which arrays record; with random-arrays every scene has an array of its own.
        scale: Multiplies the number of scenes; the share of the rows where a template is followed.
        seed: Another seed is another corpus.
        workers: Processes; default: one per core.
        cluster: Address of a Dask scheduler (tcp://host:8786), or ray for the Ray cluster that this machine has
            joined; the workers must see the same folders.
        resume: Go on where an interrupted run stopped, if speech and noise are what they were.
    """
    from remasc.parallel import on_cluster
    from remasc.simulate import generate

    with on_cluster(cluster) as there:
        root = generate(
            recipe, out, speech=speech, noise=noise, template=template, arrays=arrays, scale=scale, seed=seed,
            workers=there if workers is None else workers, resume=resume,
        )  # fmt: skip
    from eval.card import write_card

    print(write_card(root))
    print(root)
