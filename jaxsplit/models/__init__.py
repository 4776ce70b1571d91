"""Models: families behind one interface, the kernels that they are made of, their loss. Pure functions of plain pytrees.

What the letters in names of arrays stand for, as in `x_BxTxD`, here and in the rest of the package:

    R  runs of a stack                 B  sequences of a batch           D  width: a hidden state's numbers
    S  steps of a block                M  sequences of a part of it      V  vocabulary (of evaluation's sets: windows)
    A  parts of a batch                T  positions of a window; T1 is T + 1, inputs and targets
    G  groups of heads that share      S  positions of keys, where       h  half of d, which rotary positions turn in pairs
       a key and a value                  queries have T                 e  coordinates that keep documents apart (cuDNN), of
    Q  queries of such a group         F  hidden units of an MLP            which n are digits
    M  heads of a group: Q, key, value N  rows of a matrix: B x T        I, O  inputs and outputs of a product
    P  heads that have positions:      C  rows of a chunk of the loss    x  any axes, as in `a_Vx`
       Q and a key                     H  heads: G x Q                   K  domains, and the experts of a seed
    d  width of a head
"""
