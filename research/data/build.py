"""From a plain `data` section of a config to rows and batches: one place where kinds and objectives have names."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from typing import Any

from research.core.names import meant

from . import python_docs
from .chat import CHATML
from .corpus import TokenCorpus
from .corruption import CorruptedPairRows, Denoising, MaskedLM, SpanCorruption, prefix_lm, prompt_as_prefix
from .files import documents, find_files, read_examples
from .mixtures import Mixture, mixing_rates
from .preference import asked
from .preference_rows import (
    PreferencePairRows,
    PreferenceRows,
    encode_preference_pairs,
    encode_preferences,
    require_two_outcomes,
)
from .rows import DocumentRows, MappedRows, PackedRows, PaddedRows, WindowRows
from .seq2seq import PairRows, encode_pairs
from .sources import Batches, Rows, Stream
from .spans import random_spans_helper, tokenizer_sentinels
from .task_templates import templated
from .templates import encode_examples
from .tfds_source import TfdsExamples
from .unpaired import desirable, encode_unpaired, encode_unpaired_seq2seq
from .virtual import prepend, with_virtual

KINDS = ("corpus", "text", "examples", "tfds", "python_docs", "python_sources")
PREFERENCES = ("preference", "preference_seq2seq", "unpaired", "unpaired_seq2seq")
FROM_EXAMPLES = ("tune", "tune_prefix", "seq2seq", *PREFERENCES)
OBJECTIVES = ("causal", "prefix", "mlm", "span", "denoise", *FROM_EXAMPLES)  # the first five learn from plain text

_CHATS = ("tune", "tune_prefix", "preference", "unpaired")
_MIXTURE = {"mix", "weights", "cap", "temperature", "batch_size", "seed"}


@dataclass(frozen=True)
class DataConfig:
    """What is read (`kind`, `path`, `split`) and what is learned from it (`objective`, `length`).

    Kinds: `corpus` (a folder of tools/prepare_corpus.py), `text` (files or folders), `examples` (JSONL or JSON),
    `tfds` (a name or prepared folder), `python_docs`, `python_sources`. Objectives: `causal`, `prefix`, `mlm`, `span`,
    `denoise` on text; `tune`, `tune_prefix`, `seq2seq` on examples; `preference` on pairs of answers
    (`data.preference`) and `unpaired` on single ones (`data.unpaired`), held out by prompt, both also with `_seq2seq`.
    `targets_length` is the decoder's side of `denoise` and of what ends in `seq2seq` (0: as long as the other).
    `templates`: phrasings that make examples of a file's rows (`task_templates`), row i in number i mod n.
    `long`, `unusable`: what becomes of examples that do not fit and of pairs that say nothing (`preference_rows`).
    `chat_template`: for chats, where the tokenizer has none or another; "chatml", or the template itself.
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
    unusable: str = "error"
    boundary: str = "joint"
    chat_template: str = ""
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
        supervised = tuple(name for name in FROM_EXAMPLES if name not in PREFERENCES)
        for what, asked_for, takes in (
            ("templates make examples", built.templates, supervised),
            ("unusable is of judged answers", built.unusable != "error", PREFERENCES),
            ("chat_template writes chats as texts", built.chat_template, _CHATS),
        ):
            if asked_for and built.objective not in takes:
                raise ValueError(f"{what}, for {takes}; the objective is {built.objective!r}")
        return built

    @property
    def template(self) -> str | None:
        """The chat template, where one is given."""
        return CHATML if self.chat_template == "chatml" else self.chat_template or None


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
        if data.objective in PREFERENCES:
            return _preference_rows(data, found, tokenizer, pad_id, learns=split != "heldout")
        if data.objective == "seq2seq":
            return _seq2seq_rows(data, found, tokenizer, pad_id)
        coded = encode_examples(
            found, tokenizer, max_length=room, long=data.long, boundary=data.boundary, template=data.template
        )
    except ValueError as error:
        raise ValueError(f"{split} split of {data.path}: {error}") from None
    coded = [with_virtual(example, data.virtual) for example in coded] if data.virtual else coded
    rows: Rows = (PackedRows if data.pack else PaddedRows)(coded, data.length, pad_id=pad_id)
    return MappedRows(rows, prompt_as_prefix) if data.objective == "tune_prefix" else rows


def _seq2seq_rows(data: DataConfig, found: list[dict], tokenizer, pad_id: int) -> Rows:
    room, targets = data.length - len(data.virtual), data.targets_length or data.length
    pairs = encode_pairs(found, tokenizer, inputs_length=room, targets_length=targets, long=data.long)
    ids = {"decoder_start_id": _start(data, pad_id), "pad_id": pad_id}
    return PairRows(pairs, data.length, targets, **ids, pack=data.pack, virtual=data.virtual)


def _preference_rows(data: DataConfig, found: list[dict], tokenizer, pad_id: int, *, learns: bool) -> Rows:
    """Rows of two answers each; `learns`: it is an error if the judgements have only one outcome."""
    room, targets = data.length - len(data.virtual), data.targets_length or data.length
    single = data.objective.startswith("unpaired")
    shared: dict[str, Any] = {"long": data.long, "unusable": data.unusable}
    ids: dict[str, Any] = {"pad_id": pad_id, "virtual": data.virtual}
    coded: list[Any]
    if data.objective.endswith("seq2seq"):
        pairs = encode_unpaired_seq2seq if single else encode_preference_pairs
        coded = pairs(found, tokenizer, inputs_length=room, targets_length=targets, **shared)
        rows: Rows = PreferencePairRows(coded, data.length, targets, decoder_start_id=_start(data, pad_id), **ids)
    else:
        encode = encode_unpaired if single else encode_preferences
        coded = encode(found, tokenizer, length=room, boundary=data.boundary, template=data.template, **shared)
        rows = PreferenceRows(coded, data.length, **ids)
    if learns:
        require_two_outcomes([c.preferred for c in coded], single=single)
    return MappedRows(rows, desirable) if single else rows


def _start(data: DataConfig, pad_id: int) -> int:
    return pad_id if data.decoder_start < 0 else data.decoder_start


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


def build_source(
    config,
    tokenizer,
    *,
    split: str | None = None,
    shard: tuple[int, int] = (0, 1),
    rows: Callable[..., Rows] = build_rows,
) -> Batches:
    """Batches of one data section, or of several mixed by `weights` (a mapping name -> section without `kind`).

    A mixture is `{"mix": {name: section, ...}, "weights": {name: rate}, "batch_size": ..., "seed": ...}`; without
    weights the sources are mixed in proportion to their rows, at most `cap` of each, to the power 1/`temperature`.
    `rows(section, tokenizer, split)` makes the rows of each section.
    """
    if "mix" not in config:
        data = DataConfig.of(config)
        made = rows(config, tokenizer, split)
        return Batches(Stream(made, data.seed, shuffle=data.shuffle), data.batch_size, shard=shard)
    if unknown := sorted(set(config.keys()) - _MIXTURE):
        hint = meant(unknown[0], _MIXTURE)
        raise ValueError(f"unknown options {unknown} of a mixture{hint}; have {sorted(_MIXTURE)}")
    tempered = {name: config[name] for name in ("cap", "temperature") if config.get(name) is not None}
    if tempered and config.get("weights"):
        raise ValueError(f"a mixture takes either weights or cap and temperature; given weights and {sorted(tempered)}")
    seed = config.get("seed", 0)
    names = sorted(config["mix"].keys())
    # Each source has a seed of its own, or two of equal size would be read in step.
    streams = {name: Stream(rows(config["mix"][name], tokenizer, split), seed + i) for i, name in enumerate(names)}
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
        # The row itself decides, so that it is on one side in whatever phrasing; of answers, the prompt.
        key = asked if data.objective in PREFERENCES else lambda row: str(sorted(row.items()))
        held = [python_docs.is_heldout(key(row), data.heldout) for row in rows]
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
