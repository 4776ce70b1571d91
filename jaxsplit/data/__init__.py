"""Documents to tokens to batches.

    corpus.py       which corpus is meant, and which of its files and documents are wanted
    location.py     Corpus.path -> a folder, here or at a URL, and what in it is looked at
    remote.py       paths of files that lie elsewhere
    walk.py         a folder -> its files
    paths.py        a path -> the domain and the split that it names
    formats.py      a file's name -> how it is read
    listing.py      a corpus -> its file table
    file_table.py   every file: its domain and split, or why it is not read
    unpacking.py    a file -> its bytes, unpacked
    parsing.py      bytes -> text, and JSON
    records.py      Parquet, Arrow, ArrayRecord, TFRecord -> rows
    token_files.py  nanoGPT's, llm.c's, Megatron's and NumPy's files -> ids
    documents.py    a file -> documents, and what is bad
    keys.py         equal documents by their hashes, in bounded memory
    reading.py      a file of the corpus -> its documents on the disk, and a row of facts about each
    index.py        what was read of all files, joined to one table of rows
    division.py     rows -> train, valid and test, and what is left out
    domains.py      a file table -> domains, and their documents
    document_table.py   what became of every document, as a table
    tokenizer.py    documents -> ids
    bpe.py          documents, or GPT-2's merges -> a byte-level BPE
    store.py        ids on disk, memory-mapped, with a manifest
    tokenizing.py   a part of the documents that were read -> their ids on the disk
    store_writer.py ids -> a store
    joined.py       a store and domains that came later -> one to read from
    drivers.py      where reading and tokenizing run: processes of this machine (worker.py), or
    beam.py         an engine that a user has
    unfinished.py   what is finished of a store that is not
    pace.py         how far a preparation has come
    source.py       a store -> what it was made from, and how that differs from what is given
    preparation.py  a corpus and a tokenization -> their store, made once
    concerns.py     a store -> what should be known before training on it
    permutation.py  the order of an epoch
    stream.py       a store -> endless shuffled windows, mixtures of them, and the batches of a run stack
    phonebook.py    a synthetic store: names and numbers to memorise

In use:

    store = prepare_store(Corpus(path="bundled"), Tokenization(kind="bytes"), "runs/x/store")     # or open_store(directory)
    trunk = mixture(store, {domain: 1.0 for domain in store.domains}, seed=0, sequence_length=128)
    experts = [windows(store, domain, seed=0, sequence_length=128) for domain in store.domains]

    batches = Batches(experts, batch_size=16)
    batches.block(first_step=[100] * len(experts), num_steps=8)            # Windows [8, R, 16, 129]; a function of its arguments
    for tokens, weights in batches.blocks([(steps, 8), (next_steps, 8)]):  # the same, the next one read ahead on a thread
      inputs, targets = tokens[..., :-1], tokens[..., 1:]

    validation(store, "prose_en", sequence_length=128, max_tokens=65_536)  # Windows [num_windows, 129]
    bytes_per_token(store, "prose_en")                                     # bits per byte = nats per token / ln 2 / this
    store.weights("prose_en", "train", 128)                                # what each target counts; None for text: all the same
    store.counts("prose_en", "train").unique_tokens                        # also documents, tokens, bytes
    store.vocab_size, store.end_of_document, store.tokenizer.decode(ids), store.manifest_hash

No JAX here: this package imports NumPy, Grain, tokenizers, zstandard, and where they are needed PyArrow, SciPy, array_record,
fsspec, Apache Beam, and of TensorFlow Datasets the phonebook and the messages of tf.Example.
"""
