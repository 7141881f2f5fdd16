"""Trainings whose updates run on a GPU without Python, with all samples there."""
