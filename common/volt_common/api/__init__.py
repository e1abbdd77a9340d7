"""The contracts: one file per daemon, typed messages and nothing else."""
