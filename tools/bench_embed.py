"""Embedding documents on our encoder against `sentence-transformers`: MiniLM, abstracts of Cranfield or Python docs.

    python tools/bench_embed.py [--documents 200] [--rounds 5] [--set cranfield] [--data FOLDER]

`vs_sentence_transformers`: the library's time over ours for the same texts in float32, alternating in one process; both
are loaded and warm before. `bf16`: the same with bfloat16 products on both sides. `furthest`: the largest 1 − cosine
between the two vectors of a text.
"""

import argparse
import json

import bench_common as common
import numpy as np

from experiments.cells import data_folder
from experiments.loading import encoder_folder
from research.core.compilation import use_cache
from research.data import python_docs
from research.decoding.embedder import load_embedder


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--documents", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--set", choices=("cranfield", "python"), default="cranfield")
    parser.add_argument("--model", default="", help="a folder of sentence-transformers; default: the extra minilm")
    parser.add_argument(
        "--data", default="", help="folder with cranfield/; default: LIFECYCLE_DATA, else ../shared/data"
    )
    return parser.parse_args()


def read(args: argparse.Namespace) -> list[str]:
    """Texts, short and long ones as they come."""
    if args.set == "python":
        return [function.docstring for function in python_docs.functions()][: args.documents]
    lines = (data_folder(args.data) / "cranfield" / "corpus.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["text"] for line in lines[: args.documents]]


def main() -> None:
    """Measures and prints."""
    args = parse()
    use_cache()
    from sentence_transformers import SentenceTransformer

    texts, folder = read(args), encoder_folder(args.model)
    ours = {policy: load_embedder(folder, policy=policy) for policy in ("f32", "bf16")}
    theirs = {
        "f32": SentenceTransformer(str(folder), device="cpu"),
        "bf16": SentenceTransformer(str(folder), device="cpu").bfloat16(),
    }
    runs = {}
    for policy in ours:
        runs[f"ours {policy}"] = lambda policy=policy: ours[policy](texts)
        runs[f"sentence-transformers {policy}"] = lambda policy=policy: theirs[policy].encode(texts)
    tokens = np.mean([len(ours["f32"].encode(text)) for text in texts])
    common.settings(model=folder.name, documents=len(texts), tokens=f"{tokens:.0f} a document")
    wanted = theirs["f32"].encode(texts, normalize_embeddings=True)
    furthest = {policy: float(1 - (ours[policy](texts) * wanted).sum(1).min()) for policy in ours}
    seconds = common.alternate(runs, args.rounds)
    for name, value in common.medians(seconds).items():
        print(f"{name}: median {value:.3f} s, {len(texts) / value:.1f} documents/s")
    print(f"furthest from their float32: ours f32 {furthest['f32']:.2g}, bf16 {furthest['bf16']:.2g}")
    common.finish(
        vs_sentence_transformers=common.ratio(seconds, "ours f32", "sentence-transformers f32"),
        bf16=common.ratio(seconds, "ours bf16", "sentence-transformers bf16"),
        furthest=furthest["f32"],
        furthest_bf16=furthest["bf16"],
    )


if __name__ == "__main__":
    main()
