"""Documents to tokens to batches.

    corpus.py       which folder is a corpus, and which of its files are wanted
    paths.py        a path -> the domain and the split that it names
    listing.py      a folder -> its file table
    file_table.py   every file: its domain and split, or why it is not read
    documents.py    files -> documents
    domains.py      a file table -> domains, and their documents divided into train, valid and test
    tokenizer.py    documents -> ids
    bpe.py          documents, or GPT-2's merges -> a byte-level BPE
    store.py        ids on disk, memory-mapped, with a manifest
    store_writer.py ids -> a store
    source.py       a store -> what it was made from, and how that differs from what is given
    preparation.py  a corpus and a tokenization -> their store, made once
    concerns.py     a store -> what should be known before training on it
    stream.py       a store -> endless shuffled windows, mixtures of them, and the batches of a run stack
    phonebook.py    a synthetic store: names and numbers to memorise

In use:

    store = prepare_store(Corpus(path="bundled"), Tokenization(kind="bytes"), "runs/x/store")     # or open_store(directory)
    trunk = mixture(store, {domain: 1.0 for domain in store.domains}, seed=0, sequence_length=128)
    experts = [windows(store, domain, seed=0, sequence_length=128) for domain in store.domains]

    batches = Batches(experts, batch_size=16)
    batches.block(first_step=[100] * len(experts), num_steps=8)            # int32 [8, R, 16, 129]; a function of its arguments
    for block in batches.blocks([(steps, 8), (next_steps, 8)]):            # the same, the next one read ahead on a thread
      inputs, targets = block[..., :-1], block[..., 1:]

    validation(store, "prose_en", sequence_length=128, max_tokens=65_536)  # int32 [num_windows, 129]
    bytes_per_token(store, "prose_en")                                     # bits per byte = nats per token / ln 2 / this
    store.loss_mask(128)                                                   # float32 [128]: ones for text
    store.counts("prose_en", "train").unique_tokens                        # also documents, tokens, bytes
    store.vocab_size, store.end_of_document, store.tokenizer.decode(ids), store.manifest_hash

No JAX here: this package imports NumPy, Grain, tokenizers, zstandard, for parquet alone PyArrow, and for the phonebook alone
TensorFlow Datasets.
"""
