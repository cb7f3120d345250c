"""A config for a data set and a machine, with the reason beside each of its lines."""

from retina.experiment.recipe.choices import Choice, Recipe
from retina.experiment.recipe.choosing import choose_recipe
from retina.experiment.recipe.facts import Facts, look_at
from retina.experiment.recipe.making import make_recipe, run_folder_of

__all__ = ["Choice", "Facts", "Recipe", "choose_recipe", "look_at", "make_recipe", "run_folder_of"]
