"""`lm_eval` against the address of a real engine, and on the same weights in `transformers`: the same figures."""

import pytest

pytest.importorskip("lm_eval")
pytest.importorskip("torch")
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.models.openai_completions import LocalCompletionsAPI

from configs.serve import get_config
from experiments import serving
from experiments.loading import load
from tests.apps.server.conftest import served

pytestmark = pytest.mark.oracle
END = "<|endoftext|>"
CHOICES = [("The sky is", " blue"), ("The sky is", " a lie, they say"), ("", "nothing before"), ("1, 2, 3, 4,", " 5")]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small GPT-2 whose tokens are bytes."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast

    path = tmp_path_factory.mktemp("lm_eval") / "model"
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    bytes_ = Tokenizer(models.BPE({letter: i for i, letter in enumerate([*alphabet, END])}, []))
    bytes_.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bytes_.decoder = decoders.ByteLevel()
    PreTrainedTokenizerFast(tokenizer_object=bytes_, eos_token=END, bos_token=END).save_pretrained(path)
    torch.manual_seed(0)
    sizes = {"n_layer": 2, "n_embd": 32, "n_head": 2, "n_positions": 64, "initializer_range": 0.3}
    GPT2LMHeadModel(GPT2Config(vocab_size=257, bos_token_id=256, eos_token_id=256, **sizes)).save_pretrained(path)
    return path


def test_the_same_figures(folder):
    theirs = HFLM(pretrained=str(folder), device="cpu", dtype="float32", batch_size=2)
    small = {"model": str(folder), "slots": 2, "chunk": 16}
    engine = serving.engine(get_config().to_dict() | small, load(str(folder), None, "f32"), None)
    weigh = [Instance("loglikelihood", {}, pair, 0) for pair in CHOICES]
    options = {"until": ["e"], "max_gen_toks": 12, "do_sample": False}
    write = [Instance("generate_until", {}, (text, dict(options)), 0) for text, _ in CHOICES if text]
    with served(engine) as server:
        ours = LocalCompletionsAPI(
            base_url=f"{server.url}/v1/completions",
            model="model",
            tokenizer=str(folder),
            tokenizer_backend="huggingface",
            max_length=64,
            max_retries=1,
            batch_size=2,
        )
        told, expected = (model.loglikelihood(weigh, disable_tqdm=True) for model in (ours, theirs))
        assert [logprob for logprob, _ in told] == pytest.approx([logprob for logprob, _ in expected], abs=1e-4)
        assert [greedy for _, greedy in told] == [greedy for _, greedy in expected]
        texts = [model.generate_until(write, disable_tqdm=True) for model in (ours, theirs)]
        assert texts[0] == texts[1]
        assert engine.figures()["compilations"] == 0
