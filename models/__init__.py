"""What learns: staged torch models, their trainer, and the trajectory of named training states."""
