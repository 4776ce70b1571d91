"""Training run stacks: one step, one loop, one checkpoint format for seeds, experts and probes."""
