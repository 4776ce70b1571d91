"""What trained models are worth on text that they have not seen.

    likelihood.py   log-probabilities of given targets, for all runs of a stack
    perplexity.py   held-out loss and exact match, which are sums over them

In use, for R runs and V windows of T + 1 tokens, in which the targets of a prompt and of padding weigh 0:

    found = log_probabilities(spec, state["params"], tokens, weights)   # int [R or 1, V, T + 1], float [V, T]
    found["targets"], found["windows"]                                  # nats, float32 [R, V, T] and [R, V]
"""
