"""From a plain `data` section of a config to rows and batches: one place where kinds and objectives have names."""

from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path

from research.core.names import meant

from . import python_docs
from .corpus import TokenCorpus
from .corruption import CorruptedPairRows, Denoising, MaskedLM, SpanCorruption, prefix_lm, prompt_as_prefix
from .files import documents, find_files, read_examples
from .mixtures import Mixture, mixing_rates
from .rows import DocumentRows, MappedRows, PackedRows, PaddedRows, WindowRows
from .seq2seq import PairRows, encode_pairs
from .sources import Batches, Rows, Stream
from .spans import random_spans_helper, tokenizer_sentinels
from .task_templates import templated
from .templates import encode_examples
from .tfds_source import TfdsExamples
from .virtual import prepend, with_virtual

KINDS = ("corpus", "text", "examples", "tfds", "python_docs", "python_sources")
OBJECTIVES = ("causal", "prefix", "mlm", "span", "denoise", "tune", "tune_prefix", "seq2seq")
FROM_EXAMPLES = ("tune", "tune_prefix", "seq2seq")  # the others learn from plain text

_MIXTURE = {"mix", "weights", "cap", "temperature", "batch_size", "seed"}


@dataclass(frozen=True)
class DataConfig:
    """What is read (`kind`, `path`, `split`) and what is learned from it (`objective`, `length`).

    Kinds: `corpus` (a folder of tools/prepare_corpus.py), `text` (files or folders), `examples` (JSONL or JSON),
    `tfds` (a name or prepared folder), `python_docs`, `python_sources`. Objectives: `causal`, `prefix`, `mlm`, `span`,
    `denoise` on text; `tune`, `tune_prefix`, `seq2seq` on examples. `targets_length` is the decoder's side of
    `denoise` and `seq2seq` (0: as long as the other). `templates`: phrasings that make examples of a file's rows
    (`task_templates`), row i in number i mod n.
    `pack`: several documents or examples share a row, apart from each other; False: each has rows of its own.
    `virtual`: ids of a soft prompt in front of every text; `decoder_start`: the id that the decoder begins with in
    `seq2seq`, -1 for the padding token (`recipes.assemble` fills both in from the model).
    """

    kind: str = "python_docs"
    path: str = ""
    split: str = "train"
    column: str = "text"
    objective: str = "causal"
    length: int = 512
    targets_length: int = 0
    heldout: float = 0.05
    batch_size: int = 8
    seed: int = 0
    shuffle: bool = True
    pack: bool = True
    long: str = "error"
    boundary: str = "joint"
    mask_rate: float = 0.15
    mean_span: float = 3.0
    whole_word: bool = False
    templates: tuple[str, ...] = ()
    virtual: tuple[int, ...] = ()
    decoder_start: int = -1

    @classmethod
    def of(cls, config) -> "DataConfig":
        """From a mapping (a config's `data`); raises ValueError for an unknown name, listing those that exist."""
        given = dict(config.items())
        known = {f.name for f in fields(cls)}
        if unknown := sorted(set(given) - known):
            hint = meant(unknown[0], known)
            raise ValueError(f"unknown data options {unknown}{hint}; have {sorted(known)}")
        built = cls(**given)
        for name, value, allowed in (("kind", built.kind, KINDS), ("objective", built.objective, OBJECTIVES)):
            if value not in allowed:
                raise ValueError(f"unknown data {name} {value!r}{meant(value, allowed)}; have {sorted(allowed)}")
        if isinstance(built.templates, str):
            raise ValueError(f"templates is a list of phrasings, given the text {built.templates!r}")
        if built.templates and built.objective not in FROM_EXAMPLES:
            raise ValueError(f"templates make examples, for {FROM_EXAMPLES}; the objective is {built.objective!r}")
        return built


def build_rows(config, tokenizer, split: str | None = None) -> Rows:
    """Training rows of one data section; `split` (`train` or `heldout`) overrides the config's."""
    data = DataConfig.of(config)
    split = split or data.split
    pad_id = tokenizer.pad_id or 0
    if data.objective in FROM_EXAMPLES:
        return _example_rows(data, tokenizer, split, pad_id)
    rows = _text_rows(data, tokenizer, split, pad_id)
    return MappedRows(rows, partial(_prompted, ids=data.virtual)) if data.virtual else rows


def _example_rows(data: DataConfig, tokenizer, split: str, pad_id: int) -> Rows:
    room = data.length - len(data.virtual)
    try:
        found = examples(data, split)
        if data.objective == "seq2seq":
            return _seq2seq_rows(data, found, tokenizer, pad_id)
        coded = encode_examples(found, tokenizer, max_length=room, long=data.long, boundary=data.boundary)
    except ValueError as error:
        raise ValueError(f"{split} split of {data.path}: {error}") from None
    coded = [with_virtual(example, data.virtual) for example in coded] if data.virtual else coded
    rows: Rows = (PackedRows if data.pack else PaddedRows)(coded, data.length, pad_id=pad_id)
    return MappedRows(rows, prompt_as_prefix) if data.objective == "tune_prefix" else rows


def _seq2seq_rows(data: DataConfig, found: list[dict], tokenizer, pad_id: int) -> Rows:
    room, targets = data.length - len(data.virtual), data.targets_length or data.length
    pairs = encode_pairs(found, tokenizer, inputs_length=room, targets_length=targets, long=data.long)
    start = pad_id if data.decoder_start < 0 else data.decoder_start
    return PairRows(
        pairs, data.length, targets, decoder_start_id=start, pad_id=pad_id, pack=data.pack, virtual=data.virtual
    )


def _prompted(row, rng, *, ids):
    del rng
    return {name: array[0] for name, array in prepend({name: array[None] for name, array in row.items()}, ids).items()}


def _text_rows(data: DataConfig, tokenizer, split: str, pad_id: int) -> Rows:
    corpus = _corpus(data, tokenizer, split)
    if data.objective in ("span", "denoise"):
        if not data.pack:
            raise ValueError(f"objective {data.objective!r} always packs pieces into rows; pack=False is not offered")
        return _pair_rows(data, corpus, tokenizer, pad_id)
    rows: Rows = (WindowRows if data.pack else DocumentRows)(corpus, data.length, pad_id=pad_id)
    if data.objective == "mlm":
        return MappedRows(rows, MaskedLM(tokenizer, rate=data.mask_rate, whole_word=data.whole_word))
    return MappedRows(rows, prefix_lm) if data.objective == "prefix" else rows


def build_source(config, tokenizer, *, split: str | None = None, shard: tuple[int, int] = (0, 1)) -> Batches:
    """Batches of one data section, or of several mixed by `weights` (a mapping name -> section without `kind`).

    A mixture is `{"mix": {name: section, ...}, "weights": {name: rate}, "batch_size": ..., "seed": ...}`; without
    weights the sources are mixed in proportion to their rows, at most `cap` of each, to the power 1/`temperature`.
    """
    if "mix" not in config:
        data = DataConfig.of(config)
        rows = build_rows(config, tokenizer, split)
        return Batches(Stream(rows, data.seed, shuffle=data.shuffle), data.batch_size, shard=shard)
    if unknown := sorted(set(config.keys()) - _MIXTURE):
        hint = meant(unknown[0], _MIXTURE)
        raise ValueError(f"unknown options {unknown} of a mixture{hint}; have {sorted(_MIXTURE)}")
    tempered = {name: config[name] for name in ("cap", "temperature") if config.get(name) is not None}
    if tempered and config.get("weights"):
        raise ValueError(f"a mixture takes either weights or cap and temperature; given weights and {sorted(tempered)}")
    seed = config.get("seed", 0)
    names = sorted(config["mix"].keys())
    # Each source has a seed of its own, or two of equal size would be read in step.
    streams = {
        name: Stream(build_rows(config["mix"][name], tokenizer, split), seed + i) for i, name in enumerate(names)
    }
    rates = dict((config.get("weights") or {}).items()) or mixing_rates(
        {k: len(s) for k, s in streams.items()}, **tempered
    )
    return Batches(Mixture(streams, rates, seed=seed), config.get("batch_size", 8), shard=shard)


def texts(data: DataConfig, split: str) -> list[str]:
    """Texts of one split, exact duplicates removed."""
    if data.kind == "python_docs":
        found = python_docs.corpus()
    elif data.kind == "python_sources":
        found = [*python_docs.corpus(), *python_docs.sources()]
    elif data.kind == "tfds":
        examples = TfdsExamples(data.path, "train" if split == "heldout" else split)
        found = [python_docs.Document(str(i), examples[i][data.column]) for i in range(len(examples))]
    else:
        files = find_files([data.path])
        found = [python_docs.Document(str(f), t) for f in files for t in documents(f, data.column)]
    train, heldout = python_docs.split(found, data.heldout)
    chosen = [d.text for d in (heldout if split == "heldout" else train)]
    if not chosen:
        raise ValueError(f"the {split} split of {data.kind} {data.path!r} is empty ({len(found)} documents in all)")
    return chosen


def _corpus(data: DataConfig, tokenizer, split: str) -> TokenCorpus:
    if data.kind == "corpus":
        return TokenCorpus.open(data.path, split, tokenizer=tokenizer)
    if data.kind == "examples":
        raise ValueError(
            f"examples are for the objectives {', '.join(FROM_EXAMPLES)}, not {data.objective!r}; use kind='text'"
        )
    return TokenCorpus.from_texts(texts(data, split), tokenizer)


def examples(data: DataConfig, split: str) -> list[dict]:
    """Examples of one split of a section of kind `examples` or `tfds`, through its templates where it has any."""
    if data.kind == "tfds":
        source = TfdsExamples(data.path, split)
        found = [source[i] for i in range(len(source))]
        return templated(found, data.templates, name=data.path) if data.templates else found
    if data.kind != "examples":
        raise ValueError(f"objective {data.objective!r} needs kind 'examples' or 'tfds', got {data.kind!r}")
    chosen: list[dict] = []
    for file in find_files([Path(data.path)]):
        rows = list(read_examples(file))
        made = templated(rows, data.templates, name=str(file)) if data.templates else rows
        # The row itself decides, so that it is on one side in whatever phrasing.
        held = [python_docs.is_heldout(str(sorted(row.items())), data.heldout) for row in rows]
        chosen += [example for example, h in zip(made, held, strict=True) if h == (split == "heldout")]
    return chosen


def _pair_rows(data: DataConfig, corpus: TokenCorpus, tokenizer, pad_id: int) -> CorruptedPairRows:
    """Encoder-decoder rows; T5 and BART start the decoder with pad and end-of-text respectively."""
    if data.objective == "span":
        piece, targets = random_spans_helper(data.length, data.mask_rate, data.mean_span)
        corruption: SpanCorruption | Denoising = SpanCorruption(
            tokenizer_sentinels(tokenizer), density=data.mask_rate, mean_span=data.mean_span, eos_id=tokenizer.eos_id
        )
        start = pad_id
    else:
        corruption = Denoising(tokenizer, mean_span=data.mean_span)
        targets, piece = data.length, data.length - 1
        start = tokenizer.eos_id if tokenizer.eos_id is not None else pad_id
    return CorruptedPairRows(
        corpus,
        corruption,
        data.length,
        data.targets_length or targets,
        piece_length=piece,
        decoder_start_id=start,
        pad_id=pad_id,
        special_ids=tokenizer.special_ids,
    )
