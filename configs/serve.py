"""A model, its adapters and an embedding model behind an address that OpenAI's clients know.

    python -m experiments.serve --config=configs/serve.py --config.model=runs/base/decoder
    python -m experiments.serve --config=configs/serve.py --config.model=gpt2 --config.quantize=int8_dynamic
    python -m experiments.serve --config=configs/serve.py --config.model=gpt2 \
        --config.adapters="('french=runs/french', 'german=runs/german')" --config.embedder=path/to/minilm

It needs the extra `serve`, is ready after some seconds of compilation and ends at Ctrl-C or SIGTERM, once what runs is
answered. Many requests are decoded at once as in *Orca*, Yu et al., OSDI 2022; prompts are read in chunks between the
steps of others as in *Sarathi-Serve*, Agrawal et al., https://arxiv.org/abs/2403.02310.
"""

from ml_collections import ConfigDict


def get_config() -> ConfigDict:
    """The settings."""
    return ConfigDict(
        {
            "model": "",  # a Hugging Face folder or hub id, a folder of our checkpoints, or a llama2.c file
            "tokenizer": "",  # empty: beside the model
            "name": "",  # what clients call it; empty: the last part of its path
            "precision": "f32",
            "quantize": "",  # a method that needs no calibration: int8, int8_dynamic, int4, nf4, ...
            "adapters": (),  # name=folder of `peft` LoRA adapters; clients choose one by its name
            "embedder": "",  # a folder of `sentence-transformers` for /v1/embeddings
            "embedder_name": "",  # what clients call it; empty: the last part of its path
            "host": "127.0.0.1",  # other machines reach it at 0.0.0.0
            "port": 8000,  # 0: a free one, see address.json in the workdir
            "key_variable": "",  # the environment variable with the API key; empty: anyone may ask
            "slots": 8,  # requests that are decoded at a time
            "window": 0,  # tokens of a prompt and its answer; 0: the model's, at most 2048
            "chunk": 64,  # tokens of a prompt that are read at a time
            "queue": 64,  # requests that may wait
            "grace": 30.0,  # seconds that running requests have at the end
            "limits": {
                "body": 2**20,  # bytes
                "body_seconds": 20.0,  # in which a body has to have come
                "seconds": 600.0,  # in which an answer has to be written
                "n": 8,  # answers to a prompt
                "choices": 64,  # answers to all prompts of a request
                "max_tokens": 0,  # of an answer; 0: what the window leaves
                "texts": 256,  # of a request for embeddings
            },
        }
    )
