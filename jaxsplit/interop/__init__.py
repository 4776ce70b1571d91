"""Models of Hugging Face, in and out.

    huggingface.py  a folder -> a model, or its weights a part at a time; a model -> a folder
    layouts.py      which of their tensors each of our parameters is, both ways
    configs.py      config.json, both ways
    tensors.py      safetensors files
    tokenizers.py   tokenizer files
"""
