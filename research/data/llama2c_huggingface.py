"""A llama2.c tokenizer as one of the `tokenizers` library: a tokenizer.json beside exported weights."""

from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors

from .huggingface_tokenizer import HuggingFaceTokenizer
from .llama2c_tokenizer import Llama2cTokenizer

SPACE = "\u2581"
FIRST = 259  # of the pieces that are neither special nor a byte


def as_huggingface(tokenizer: Llama2cTokenizer) -> HuggingFaceTokenizer:
    """The same pieces and ids; merges in the order of their scores, as SentencePiece's BPE does them."""
    pieces = tokenizer.pieces(range(tokenizer.vocab_size))
    pieces = [piece.replace(" ", SPACE) if i >= FIRST else piece for i, piece in enumerate(pieces)]
    names = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}
    pieces[:3] = names.values()
    ids: dict[str, int] = {}
    for i, piece in enumerate(pieces):
        ids.setdefault(piece, i)
    merges = []
    for i, piece in enumerate(pieces[FIRST:], FIRST):
        halves = ((piece[:k], piece[k:]) for k in range(1, len(piece)))
        merges += [(-tokenizer.scores[i], ids[a], ids[b], a, b) for a, b in halves if a in ids and b in ids]
    bpe = models.BPE(
        vocab=ids, merges=[pair[3:] for pair in sorted(merges)], unk_token="<unk>", byte_fallback=True, fuse_unk=True
    )
    found = Tokenizer(bpe)
    found.normalizer = normalizers.Sequence([normalizers.Prepend(SPACE), normalizers.Replace(" ", SPACE)])
    whole = [decoders.Replace(SPACE, " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    found.decoder = decoders.Sequence(whole)
    found.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in names.values()])
    found.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", ids["<s>"])])
    return HuggingFaceTokenizer(found, {"tokenizer_class": "PreTrainedTokenizerFast", **names})
