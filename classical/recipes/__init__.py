"""Recipes: which estimator `model.algorithm` names."""
