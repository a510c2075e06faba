"""LibRecommender beside embstore, with the real library in an environment of its own; see README.md."""
