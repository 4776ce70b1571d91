"""The experiment: the tree of trunk, snapshots, forks and cells, its ledger, and running it."""
