"""Models: families behind one interface, the kernels that they are made of, their loss. Pure functions of plain pytrees.

What the letters in names of arrays stand for, as in `x_BxTxD`, in the whole package:

    A  parts of a batch (accumulation)
    B  sequences of a batch
    C  rows of a chunk of the loss
    D  width: the numbers of a hidden state
    d  width of a head
    e  coordinates that keep documents apart for cuDNN, of which n are digits
    F  hidden units of an MLP; of clusters, features
    G  groups of heads that share a key and a value
    H  heads: G x Q
    h  half of d: the pairs that rotary positions turn
    I  inputs of a product
    K  domains; clusters
    L  layers
    M  sequences of a part of a batch; of a projection, the heads of a group: Q queries, a key, a value
    N  rows of a matrix: B x T; of clusters, points
    n  binary digits of a document's number
    O  outputs of a product
    P  heads of a group that have positions: Q queries and a key
    p  of evaluation, positions that have a target
    Q  queries of a group
    R  runs of a stack
    S  steps of a block; of attention, positions of keys, where queries have T
    T  positions of a window; T1 is T + 1, inputs and targets
    V  vocabulary; of evaluation, the windows of a set
    x  at the end: any more axes
    1  an axis of size 1, and likewise other digits
"""
