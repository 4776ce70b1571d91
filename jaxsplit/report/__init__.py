"""Figures and the pages that hold them, drawn from the files of an experiment or a law alone."""
