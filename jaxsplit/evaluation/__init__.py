"""What trained models are worth on text that they have not seen.

    likelihood.py   log-probabilities of given targets, for all runs of a stack
    perplexity.py   held-out loss and exact match, which are sums over them
    experts.py      the same of spans of any lengths, for models that are loaded; documents.py, tasks.py and choices.py make spans
    matrix.py       models by domains
    routers.py      which experts read a text; routed.py what they make of it, routing.py all that --router measures, costs.py FLOPs
    results.py      results.json

In use, for R runs and V windows of T + 1 tokens, in which the targets of a prompt and of padding weigh 0:

    found = log_probabilities(spec, state["params"], tokens, weights)   # int [R or 1, V, T + 1], float [V, T]
    found["targets"], found["windows"]                                  # nats, float32 [R, V, T] and [R, V]
"""
