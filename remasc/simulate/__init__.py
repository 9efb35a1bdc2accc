"""A simulated corpus in ReMASC's layout: `generate(recipe, out, speech=..., noise=...)`.

recipe -> scenes (plain JSON, no audio yet) -> render (rooms, talkers, playback, noise) -> wav + meta.csv.
"""

from remasc.identity import scene_rng
from remasc.simulate.generate import generate
from remasc.simulate.recipes import Recipe, load_recipe, shipped_recipes

__all__ = ["Recipe", "generate", "load_recipe", "scene_rng", "shipped_recipes"]
