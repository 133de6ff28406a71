"""The training benchmark: loaders of published models, with sleeps for their computing."""
