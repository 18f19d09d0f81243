"""Turn your own files into a tokenized corpus that training maps into memory.

    python tools/prepare_corpus.py --tokenizer=FOLDER_OR_FILE --out=corpus my_texts/ more.jsonl
    python tools/prepare_corpus.py --train_vocab=8000 --out=corpus my_texts/        # a new SentencePiece tokenizer

Files: .txt, .md, .rst, .py ... (one document each), .jsonl and .json lists (one document per object, --column).
Exact duplicates are removed, documents are held out by a hash of their content, an interrupted run goes on.
"""

import argparse
import sys
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

from research.data.files import documents, find_files
from research.data.prepare import prepare
from research.data.python_docs import is_heldout
from research.data.sentencepiece_tokenizer import train_sentencepiece
from research.data.tokenizer import load_tokenizer


def main(arguments: list[str] | None = None) -> int:
    options = _parse(arguments)
    console = Console(stderr=True)
    try:
        files = find_files(options.files)
        tokenizer = _tokenizer(options, files, console)
        bars = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn())
        with Progress(*bars, TimeRemainingColumn(), console=console) as bar:
            task = bar.add_task("tokenizing")
            index = prepare(
                files,
                tokenizer,
                options.out,
                heldout=options.heldout,
                shard_tokens=options.shard_tokens,
                column=options.column,
                progress=lambda done, total: bar.update(task, completed=done, total=total),
            )
            bar.update(task, completed=1, total=1)
    except (ValueError, OSError) as error:
        console.print(f"error: {error}", style="red", markup=False, highlight=False)
        return 1
    for name, split in index["splits"].items():
        size = f"{split['bytes']:,} bytes, {split['tokens']:,} tokens"
        print(f"{name:8} {split['documents']:,} documents, {size}, {len(split['shards'])} shards")
    print(f"removed  {index['duplicates_removed']:,} exact duplicates\nwritten  {options.out}")
    return 0


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", help="files or folders")
    parser.add_argument("--out", required=True, type=Path, help="folder to write")
    which = parser.add_mutually_exclusive_group(required=True)
    which.add_argument("--tokenizer", help="'bytes', a tokenizer file or a folder")
    which.add_argument("--train_vocab", type=int, help="train a SentencePiece tokenizer with so many pieces")
    parser.add_argument("--heldout", type=float, default=0.01, help="share of documents held out (default 0.01)")
    parser.add_argument("--shard_tokens", type=int, default=1 << 24, help="tokens per shard (default 16777216)")
    parser.add_argument("--column", default="text", help="the text column of JSON files (default text)")
    return parser.parse_args(arguments)


def _tokenizer(options: argparse.Namespace, files: list[Path], console: Console):
    """The tokenizer named, or one trained on the training documents and kept beside the corpus for a restart."""
    if options.tokenizer:
        return load_tokenizer(options.tokenizer)
    kept = options.out / "trained_tokenizer"
    if kept.is_dir():
        tokenizer = load_tokenizer(kept)
        if tokenizer.vocab_size != options.train_vocab:
            raise ValueError(f"{kept} has {tokenizer.vocab_size} pieces, --train_vocab says {options.train_vocab}")
        return tokenizer
    console.print(f"training a tokenizer of {options.train_vocab} pieces on {len(files)} files")
    # The held-out documents stay unseen here too.
    texts = (t for f in files for t in documents(f, options.column) if not is_heldout(t, options.heldout))
    tokenizer = train_sentencepiece(texts, options.train_vocab, sentinels=100, special_tokens=["<mask>"])
    tokenizer.save(kept)
    return tokenizer


if __name__ == "__main__":
    sys.exit(main())
